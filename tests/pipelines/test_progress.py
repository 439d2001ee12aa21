import io

from rich.console import Console

from pipelines.progress import StepView


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_line_a_step() -> None:
    out = io.StringIO()
    with StepView("graph", ["first", "second"], out) as view:
        view.start("first")
        view.line("working")
        view.end("first", 1.25, ok=True, cached=False)
        view.start("second")
        view.end("second", 0.0, ok=True, cached=True)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["first", "done", "1.2", "s"],
        ["second", "cached", "0.0", "s"],
    ]


def test_a_terminal_shows_what_runs_and_what_waits() -> None:
    view = StepView("graph", ["first", "second", "third"], Terminal())
    view.start("first")
    view.end("first", 2.0, ok=False, cached=False)
    view.start("second")
    view.line("[red]loss[/red] 0.25 " + "ㅋ" * 200)
    out = io.StringIO()
    Console(file=out, width=80).print(view._render())
    shown = out.getvalue()
    assert "FAILED" in shown
    assert "running" in shown
    assert "[red]loss[/red]" in shown, "a step's output is text, never markup"
    assert "○  third" in shown
    assert len(shown.splitlines()) == 4
