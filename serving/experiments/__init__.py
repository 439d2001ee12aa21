"""An A/B comparison: who met which arm, what was answered, how it turned out, and what follows.

specification, goals, lifecycle, catalogue   what was agreed, and what was done since
buckets, allocation, assignment(_sql)        which arm a unit meets
routes, turning                              who answers everybody now, whatever was dealt
writer, journal, store, clock                what was answered to whom, and how it turned out
tables, migrations/, database                where that lies
export, retention, archive(_…), hashes       what is old, as Parquet
units, archive_units, counts                 one entry per unit and arm, from store or archive
inference/, missing                          the arithmetic
decision_rule, verdict                       two arms without an experiment: what follows
metric_names, metric_values                  what a metric is
metric_rows, metric_arrays, shadow_rows      the metrics of a phase, from the store
metric_comparison, primary_sequence, …       each against the control's, by the method that fits
analysis, report(_…), paired                 the report on a phase: figures, verdict, page
tail, tallies, metric_feed                   the metrics of a phase, kept up to date
guardrails, guardrail_readings, guarding     what they show at every look, and what follows
notices                                      every change of an experiment, told to a webhook
"""
