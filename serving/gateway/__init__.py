"""The HTTP gateway: what it takes, what it refuses, and how it answers.

app, parts, settings, middleware, limits     the process, its parts, and who is turned away
answering, items, arms, asking               reviews: assigned, answered, recorded
embedding_…, language_…, passing, upstream   vectors, summaries and chats
live, reloading                              another deployment takes over
routing, route_watch                         who answers whom, and whom everybody is sent to
record, feedback                             what is stored before an answer is sent
shadow                                       what other arms would have answered
guardrails, experiment_watch, repeating      experiments that are stopped without a person
experiments, experiment_…, admin, web_pages  experiments by API and web page
metrics, guardrail_metrics, observing        what Prometheus reads
"""
