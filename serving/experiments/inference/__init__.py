"""The arithmetic of comparisons. Units come in, in their order of arrival; figures go out.

planning, stopping                          before: how many units, and how long
sample_ratio, ratio_report, balance         were units dealt as they were meant to be, and gaps too?
sequences, thinned, many_arms               differences, looked at after every unit
boundaries, burn_in, levels, readings     what these rest on, and what they show
covariates, ratios, quantiles, intervals    less variance; metrics that are no plain means
exact, exact_rates, fixed_looks             small samples, and one look
multiplicity, interleaving                  many metrics; two rankings on one page
"""
