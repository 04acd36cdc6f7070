"""A system of a third party, whole: what it registers. Heavy modules are imported when they are needed."""

from pathlib import Path

from sizetransfer import hookimpl


@hookimpl
def register_teachers(register):
    """Register the law."""
    from coin_toss.law import CoinsSpec

    register(CoinsSpec)


@hookimpl
def register_students(register):
    """Register the student."""
    from coin_toss.reader import CoinReaderSpec

    register(CoinReaderSpec)


@hookimpl
def register_measures(register):
    """Register the measure."""
    from coin_toss.likeness import CoinLikenessSpec

    register(CoinLikenessSpec)


@hookimpl
def register_figures(register):
    """Register the figure."""
    from coin_toss.figure import coin_bars

    register("coin-bars", coin_bars)


@hookimpl
def register_experiments(register):
    """Register the experiment file."""
    register(Path(__file__).with_name("coins.yaml"))


@hookimpl
def register_executors(register):
    """Register the executor."""
    from coin_toss.running import OneByOne

    register("one-by-one", OneByOne)


@hookimpl
def on_event(event):
    """Listen to every run."""
    from coin_toss.running import note

    note(event)
