"""A window to play with: a slider over the window on one saved problem, and what the window did. No model is needed.

Completions are text a model wrote: every piece is escaped before it becomes a page.
"""

import json
from collections import Counter
from html import escape

from z1lib.records import Completion, Grade, Problem

CUT = '<span style="background:#D55E00;color:white">&nbsp;cut at {tokens} tokens&nbsp;</span>'
HINT = '<span style="background:#F0E442;color:black">{hint}</span>'
BOX = (
    '<pre style="white-space:pre-wrap;max-height:28em;overflow:auto;border-left:3px solid {colour};'
    'padding-left:.6em">{text}</pre>'
)

MOST = 12  # problems of a set to choose from
SLIDER = """<!doctype html><meta charset="utf-8"><title>One problem under the windows</title>
<style>body { font: 14px/1.4 system-ui, sans-serif; margin: .5em } input { width: 20em; vertical-align: middle }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #111 } }</style>
<label>problem <select id="problem"></select></label>
<label>window <input id="window" type="range" min="0" value="0"> <output id="value"></output></label>
<div id="page"></div>
<script>
const pages = PAGES;
const [problem, slider, value, page] = ["problem", "window", "value", "page"].map(id => document.getElementById(id));
pages.forEach(([title], i) => problem.add(new Option(title, i)));
function show() {
  const shown = pages[problem.value][1];
  slider.max = shown.length - 1;
  [value.textContent, page.innerHTML] = shown[slider.value];
}
problem.onchange = slider.oninput = show;
show();
</script>"""


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
) -> str:
    """A menu of problems and a slider over the windows of saved completions, as a page that needs no kernel.

    The first MOST problems of every set. Raises ValueError if there are no completions of the model under the policy.
    """
    graded, rows = {grade.key: grade for grade in grades}, _by_problem(completions, model, policy)
    if not rows:
        raise ValueError(f"no completions of {model!r} under {policy!r}")
    seen: Counter = Counter()
    pages = []
    for problem in (one for one in problems if one.id in rows):
        seen[problem.source] += 1
        if seen[problem.source] <= MOST:
            own = sorted(rows[problem.id].items())
            shown = [(window, show_completion(problem, row, graded[row.key], hint)) for window, row in own]
            pages.append((f"{problem.id} ({problem.source}, level {problem.level})", shown))
    data = json.dumps(pages).replace("</", "<\\/")  # no text of a model ends the script
    frame = escape(SLIDER.replace("PAGES", data))
    page = f'<iframe srcdoc="{frame}" sandbox="allow-scripts" style="width:100%;height:36em;border:0"></iframe>'
    return f"<div>{page}</div>"  # IPython warns of a frame alone


def turning_point(completions: list[Completion], grades: list[Grade], model: str) -> list[Completion]:
    """One problem under the shifted window: at the smallest, the last where it is wrong, the first where it is right.

    The first problem that is wrong at the smallest window and right from some window on; empty if there is none.
    """
    graded = {grade.key: grade.correct for grade in grades}
    for own in _by_problem(completions, model, "shifted_window").values():
        rows = [own[window] for window in sorted(own)]
        right = [graded[row.key] for row in rows]
        turn = right.index(True) if True in right else 0
        if turn > 1 and all(right[turn:]):
            return [rows[0], rows[turn - 1], rows[turn]]
    return []


def saved_by_the_hint(completions: list[Completion], grades: list[Grade], model: str) -> list[Completion]:
    """One trace that is wrong cut at its tokens in all, and right with the hint at a window; empty if there is none."""
    graded = {grade.key: grade.correct for grade in grades}
    hinted, cut = (_by_problem(completions, model, policy) for policy in ("shifted_window", "truncation_matched"))
    for name, own in hinted.items():
        for window, row in sorted(own.items()):
            other = cut.get(name, {}).get(window)
            if row.overran and other and graded[row.key] and not graded[other.key]:
                return [other, row]
    return []


def _by_problem(completions: list[Completion], model: str, policy: str) -> dict[str, dict[int, Completion]]:
    """problem -> window -> the first sample of a model under a policy."""
    rows: dict[str, dict[int, Completion]] = {}
    for row in completions:
        if (row.model, row.policy, row.sample) == (model, policy, 0):
            rows.setdefault(row.problem_id, {})[row.window] = row
    return rows
