"""A window to play with: a slider over the window on one saved problem, and what the window did. No model is needed.

Completions are text a model wrote: every piece is escaped before it becomes a page.
"""

from html import escape

import ipywidgets as widgets

from z1lib.records import Completion, Grade, Problem

CUT = '<span style="background:#D55E00;color:white">&nbsp;cut at {tokens} tokens&nbsp;</span>'
HINT = '<span style="background:#F0E442;color:black">{hint}</span>'
BOX = (
    '<pre style="white-space:pre-wrap;max-height:28em;overflow:auto;border-left:3px solid {colour};'
    'padding-left:.6em">{text}</pre>'
)


def show_completion(problem: Problem, completion: Completion, grade: Grade, hint: str) -> str:
    """One completion as HTML: the problem, the trace, where it was cut, the hint, the answer, verdict and account."""
    verdict = "right" if grade.correct else f"wrong ({grade.error})"
    found = "nothing" if grade.extracted is None else f"<code>{escape(grade.extracted)}</code>"
    return (
        BOX.format(colour="#999999", text=escape(problem.prompt))
        + show_trace(completion, hint)
        + f"<p><b>{verdict}</b>: found {found} by <i>{escape(grade.rule)}</i>, expected "
        f"<code>{escape(problem.reference)}</code>.</p>"
    )


def show_trace(completion: Completion, hint: str) -> str:
    """What a model wrote, where it was cut, the hint, the answer, and the account under it, as HTML."""
    trace = escape(completion.thinking_text)
    if completion.overran:
        trace += CUT.format(tokens=completion.thinking_tokens)
    if completion.overran and completion.hint_tokens:
        trace += HINT.format(hint=escape(hint.strip("\n")))
    if completion.answer_text:  # a model that closed its own thinking answers without a cut
        trace += f"\n{escape(completion.answer_text.lstrip())}"
    account = (
        f"{completion.thinking_tokens} thinking + {completion.hint_tokens} hint + {completion.answer_tokens} answer "
        f"= {len(completion.token_ids)} tokens"
    )
    return BOX.format(colour="#0072B2", text=trace) + f"<p>{account}</p>"


def explore_windows(
    problems: list[Problem], completions: list[Completion], grades: list[Grade], model: str, policy: str, hint: str
) -> widgets.VBox:
    """A menu of problems and a slider over the windows of saved completions. Raises ValueError if there are none."""
    by_id, graded = {problem.id: problem for problem in problems}, {grade.key: grade for grade in grades}
    rows: dict[str, dict[int, Completion]] = {}
    for row in completions:
        if (row.model, row.policy, row.sample) == (model, policy, 0):
            rows.setdefault(row.problem_id, {})[row.window] = row
    if not rows:
        raise ValueError(f"no completions of {model!r} under {policy!r}")
    menu = widgets.Dropdown(options=[(_title(by_id[name]), name) for name in rows], description="problem")
    windows = sorted(next(iter(rows.values())))
    slider = widgets.SelectionSlider(options=windows, description="window")
    page = widgets.HTML()

    def show(_change=None) -> None:
        row = rows[menu.value][slider.value]
        page.value = show_completion(by_id[menu.value], row, graded[row.key], hint)

    menu.observe(show, names="value")
    slider.observe(show, names="value")
    show()
    return widgets.VBox([menu, slider, page])


def _title(problem: Problem) -> str:
    return f"{problem.id} ({problem.source}, level {problem.level})"
