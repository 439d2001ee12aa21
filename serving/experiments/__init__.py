"""An A/B comparison: who met which arm, what was answered, how it turned out, and what follows.

specification, lifecycle, catalogue      what was agreed, and what was done since
buckets, allocation, assignment(_sql)    which arm a unit meets
writer, store, tables, database          what was answered to whom, and how it turned out
export, retention, archive(_…)           what is old, as Parquet
units, archive_units                     one entry per unit and arm, from store or archive
inference/, missing                      the arithmetic
decision_rule, verdict                   what it is held against, and what it says
"""
