"""What the dashboards are made of: a board of rows, and kinds of panel, each with a unit and a sentence on what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "ratchet"
WIDTH = 24
"""Columns of a dashboard, in Grafana's grid."""

Query = tuple[str, str]
"""A PromQL query, and the legend of its series."""
Steps = Sequence[tuple[float | None, str]]
"""From which value on (None: from the beginning), which color."""
Panel = timeseries.Panel | stat.Panel | heatmap.Panel

RATIO, SECONDS, BYTES, PER_SECOND, COUNT, NATS = "percentunit", "s", "bytes", "cps", "short", "none"


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    marks = [Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(marks)


def _query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)


def lines(title: str, meaning: str, unit: str, *queries: Query, steps: Steps = (), stacked: bool = False) -> Panel:
    """Curves over time. meaning: what is shown, what is healthy. steps: thresholds, drawn as dashed lines."""
    panel = timeseries.Panel().title(title).description(meaning).unit(unit).datasource(SOURCE).height(8)
    panel = panel.line_width(1).fill_opacity(30 if stacked else 8).show_points(words.VisibilityMode.NEVER)
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI).sort(words.SortOrder.DESCENDING)
    )
    legend = (
        common.VizLegendOptions().display_mode(words.LegendDisplayMode.LIST).placement(words.LegendPlacement.BOTTOM)
    )
    panel = panel.legend(legend.show_legend(True))
    if unit == RATIO:
        panel = panel.min(0)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL))
    if steps:
        style = common.GraphThresholdsStyleConfig().mode(words.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(style)
    for query in queries:
        panel = panel.with_target(_query(*query))
    return panel


def number(title: str, meaning: str, unit: str, query: str, *, steps: Steps = ((None, "green"),)) -> Panel:
    """The last value in large digits, with a small curve behind it."""
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = stat.Panel().title(title).description(meaning).unit(unit).datasource(SOURCE).height(4).span(4)
    panel = panel.reduce_options(reduced).graph_mode(words.BigValueGraphMode.AREA).thresholds(_thresholds(steps))
    return panel.with_target(_query(query, "{{run}}"))


def buckets(title: str, meaning: str, unit: str, metric: str) -> Panel:
    """A histogram over time, as shares of its observations. metric: with its selector and without `_bucket`."""
    name, _, selector = metric.partition("{")
    query = f"sum by (le) (increase({name}_bucket{{{selector}[$__rate_interval]))"
    panel = heatmap.Panel().title(title).description(meaning).unit(unit).datasource(SOURCE).height(8).calculate(False)
    panel = panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
    return panel.with_target(_query(query, "{{le}}").format(PromQueryFormat.HEATMAP))


def quantiles(metric: str, *by: str) -> tuple[Query, Query]:
    """Median and 95th percentile of a histogram, for each value of the labels `by`. metric: as in `buckets`."""
    name, _, selector = metric.partition("{")
    labels = ", ".join(("le", *by))
    rate = f"sum by ({labels}) (rate({name}_bucket{{{selector}[$__rate_interval]))"
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return (
        (f"histogram_quantile(0.5, {rate})", f"{legend} median".strip()),
        (f"histogram_quantile(0.95, {rate})", f"{legend} 95 %".strip()),
    )


@dataclass
class Board:
    """One dashboard. `uid` is its address in Grafana and the name of its file."""

    uid: str
    title: str
    question: str
    """What it answers; the description of the dashboard, and its row in docs/dashboards.md."""
    rows: list[tuple[str, list[Panel]]]
    variables: dict[str, str] = field(default_factory=dict)
    """Name -> query of its values, besides `run`, which every board has."""

    def build(self) -> dashboard.Dashboard:
        board = dashboard.Dashboard(self.title).uid(self.uid).description(self.question).tags([TAG]).refresh("10s")
        board = board.time("now-1h", "now").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR).readonly()
        links = dashboard.DashboardLink("Ratchet").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(False)
        board = board.link(links.include_vars(True).keep_time(True))
        board = board.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        values = {"run": "label_values(ratchet_wait_seconds_total, run)"} | self.variables
        for name, query in values.items():
            variable = dashboard.QueryVariable(name).label(name).query(query).datasource(SOURCE)
            variable = variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
            board = board.with_variable(variable.multi(True).include_all(True).all_value(".*"))
        for title, panels in self.rows:
            board = board.with_row(dashboard.Row(title))
            for panel in panels:
                wide = panel if isinstance(panel, stat.Panel) else panel.span(WIDTH // min(3, len(panels)))
                board = board.with_panel(wide)
        return board
