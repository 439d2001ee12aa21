"""The registry: runs, versions, aliases, and the evidence on which an alias moves.

connection, durable_lines                    MLflow, its lock, and files that only grow
versions, artifact_store, model_files, …     a version: registered, signed, fetched
evidence, ledger, aliases                    why an alias may move, and that it did
journal, transition(_steps)                  a change of who answers, whole after any kill
arms, promotion, language_deploy, rollback   deploy, promote, roll back, bring back
phase_arms, phases, winners                  an experiment's phases put to work, its winner crowned
experiment, experiment_…                     `make experiment`: commands, questions, what they show
"""
