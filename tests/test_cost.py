"""Costs add up, and what is not known stays apart from nothing."""

from hypothesis import given
from hypothesis import strategies as st

from z1lib.cost import Cost

amounts = st.one_of(st.none(), st.integers(0, 100))
costs = st.builds(Cost, *[amounts] * 5, st.one_of(st.none(), st.integers(0, 9)), amounts)


@given(st.lists(costs, max_size=5))
def test_a_sum_is_the_sum_of_each_field_and_unknown_where_one_is(rows):
    for name, value in vars(sum(rows, Cost())).items():
        parts = [vars(row)[name] for row in rows]
        assert value == (None if None in parts else sum(parts))


@given(costs, costs)
def test_what_happens_at_the_same_time_is_as_deep_as_the_deeper(one, other):
    together = one.beside(other)
    assert together == other.beside(one)
    known = None not in (one.depth, other.depth)
    assert together.depth == (max(one.depth, other.depth) if known else None)
    assert vars(together) | {"depth": 0} == vars(one + other) | {"depth": 0}


def test_a_program_in_the_sandbox_has_its_price():
    from z1lib.sandbox.host import ExecutionResult

    result = ExecutionResult(True, 0, "", "", None, 0.25, "namespaces")
    assert result.cost == Cost(programs=1, program_s=0.25)
