"""A figure of its own, beside those that follow from the measure's parts."""


def coin_bars(data):
    """Bars of the likeness at distance zero."""
    from sizetransfer.drawing import Drawing, Omitted, new_figure

    rows = data.values("coin-likeness", "likeness", coordinate=0.0)
    if rows.empty:
        return Omitted("coin-bars", "no likeness was measured")
    figure = new_figure(4.0, 3.0)
    figure.subplots().bar(range(len(rows)), rows["value"])
    return Drawing("coin-bars", "Bars of the coins", "One bar a student and size.", figure)
