"""The assignment in plain SQL: an allocation comes in, a query goes out that re-derives every arm.

It needs nothing but the store: no salt, no extension, no function of our own. An analyst runs it as
it is, or sets it beside what was stored; a row here is a unit that met another arm than its own:

    sql = assignment_sql(allocation, "postgresql")        # or "sqlite"
    f'''
    SELECT exposures.unit, exposures.arm, dealt.arm, dealt.why
    FROM exposures JOIN ({sql}) AS dealt ON dealt.unit = exposures.unit
    WHERE exposures.experiment_id = '…' AND exposures.arm IS DISTINCT FROM dealt.arm
    '''

(SQLite knows ``IS DISTINCT FROM`` since 3.39.) The hash is walked digit by digit in recursive
queries, so it takes about 75 rows a unit and seed: right for checks of thousands of units; for
millions ``assign_all`` gives the same answer. A seed stands in the query as ``fnv1a32(seed)``, from
where the walk over the unit begins: databases need not agree on what a character is.
"""

from collections.abc import Sequence
from typing import Final, Literal

from serving.dealing import BUCKETS
from serving.experiments.allocation import Allocation
from serving.experiments.buckets import (
    FNV_OFFSET,
    FNV_PRIME,
    UNIT_DIGITS,
    BucketRange,
    seed_state,
)

Dialect = Literal["sqlite", "postgresql"]

# No % and no : in it, so that every driver passes the text on as it is: a remainder is written as a
# mask or a difference, and 64-bit integers hold every product.
_QUERY: Final = """\
WITH RECURSIVE
units (unit) AS (
  SELECT DISTINCT CAST(unit AS TEXT) FROM exposures
  WHERE {where}
),
seeds (role, state) AS (
  VALUES {seeds}
),
-- fnv1a32(seed + unit), from fnv1a32(seed) on
inner_walk (unit, role, place, state) AS (
  SELECT unit, role, 1, state FROM units CROSS JOIN seeds
  UNION ALL
  SELECT unit, role, place + 1, {inner_step}
  FROM inner_walk WHERE place <= {unit_digits}
),
inner_hashes (unit, role, digits) AS (
  SELECT unit, role, CAST(state AS TEXT) FROM inner_walk WHERE place = {unit_digits} + 1
),
-- fnv1a32 of that number's decimal digits
outer_walk (unit, role, digits, place, state) AS (
  SELECT unit, role, digits, 1, CAST({offset} AS BIGINT) FROM inner_hashes
  UNION ALL
  SELECT unit, role, digits, place + 1, {outer_step}
  FROM outer_walk WHERE place <= LENGTH(digits)
),
buckets (unit, role, bucket) AS (
  SELECT unit, role, state - state / {buckets} * {buckets}
  FROM outer_walk WHERE place = LENGTH(digits) + 1
),
found (unit, experiment, layer, holdout) AS (
  SELECT unit,
    MAX(CASE role WHEN 'experiment' THEN bucket END),
    MAX(CASE role WHEN 'layer' THEN bucket END),
    MAX(CASE role WHEN 'holdout' THEN bucket END)
  FROM buckets GROUP BY unit
),
judged (unit, bucket, why) AS (
  SELECT unit, experiment, CASE
    {reasons}
    ELSE 'outside_coverage'
  END
  FROM found
)
SELECT unit, bucket, CASE
    {arms}
  END AS arm, why
FROM judged"""


def assignment_sql(
    allocation: Allocation, dialect: Dialect, *, deployment_id: str | None = None
) -> str:
    """The query whose rows ``(unit, bucket, arm, why)`` say what ``assign`` says of stored units.

    Args:
        allocation: of the experiment whose exposures are read.
        dialect: of the database.
        deployment_id: reads the exposures of this deployment alone; else the whole experiment's.

    Returns:
        One SELECT, a row per unit, in no order; it stands alone or as a subquery.
    """
    where = f"experiment_id = {_text(allocation.experiment_id)}"
    if deployment_id is not None:
        where += f" AND deployment_id = {_text(deployment_id)}"
    return _QUERY.format(
        where=where,
        seeds=_seeds(allocation),
        inner_step=_step("unit", dialect),
        outer_step=_step("digits", dialect),
        unit_digits=UNIT_DIGITS,
        offset=FNV_OFFSET,
        buckets=BUCKETS,
        reasons="\n    ".join(_reasons(allocation)),
        arms="\n    ".join(_arms(allocation)),
    )


def _seeds(allocation: Allocation) -> str:
    seeds = {"experiment": allocation.seed}
    if allocation.layer:
        seeds["layer"] = allocation.layer.seed
    if allocation.holdout:
        seeds["holdout"] = allocation.holdout.seed
    return ", ".join(
        f"({_text(role)}, CAST({seed_state(seed)} AS BIGINT))" for role, seed in seeds.items()
    )


def _step(text: str, dialect: Dialect) -> str:
    """One step of FNV-1a: the state XOR the character, times the prime, in 32 bits."""
    letter = f"SUBSTR({text}, place, 1)"
    if dialect == "postgresql":
        mixed = f"(state # ASCII({letter}))"
    else:  # SQLite has no XOR
        mixed = f"((state | UNICODE({letter})) - (state & UNICODE({letter})))"
    return f"({mixed} * {FNV_PRIME}) & {0xFFFFFFFF}"


def _reasons(allocation: Allocation) -> list[str]:
    """Cases of ``why`` in the order in which ``assign`` asks."""
    cases = []
    if allocation.overrides:
        forced = ", ".join(_text(unit) for unit in allocation.overrides)
        cases.append(f"WHEN unit IN ({forced}) THEN 'override'")
    if allocation.holdout:
        cases.append(f"WHEN {_within('holdout', (allocation.holdout.buckets,))} THEN 'holdout'")
    if allocation.layer:
        cases.append(f"WHEN NOT ({_within('layer', allocation.namespace)}) THEN 'outside_layer'")
    cases.append(f"WHEN {_within('experiment', allocation.ranges)} THEN 'assigned'")
    return cases


def _arms(allocation: Allocation) -> list[str]:
    cases = [
        f"WHEN unit = {_text(unit)} THEN {_text(name)}"
        for unit, name in allocation.overrides.items()
    ]
    cases += [
        f"WHEN why = 'assigned' AND {_within('bucket', (owned,))} THEN {_text(arm.name)}"
        for arm, owned in zip(allocation.arms, allocation.ranges, strict=True)
    ]
    return cases


def _within(column: str, ranges: Sequence[BucketRange]) -> str:
    return " OR ".join(
        f"({column} >= {owned.start} AND {column} < {owned.stop})" for owned in ranges
    )


def _text(value: str) -> str:
    """A value as SQL text: in both databases a quote is doubled, and nothing else is special."""
    return "'" + value.replace("'", "''") + "'"
