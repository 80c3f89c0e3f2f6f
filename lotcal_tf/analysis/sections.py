"""The sections of a report: which tables and figures it has, and what they say."""

import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.analysis import figures, label_noise_section
from lotcal_tf.analysis.comparison import (
    METRICS,
    SCALED,
    SELECTED,
    SHIFTED,
    Place,
    Ranked,
    Row,
    curve,
    places,
    rank,
    ranking_places,
    worse_on_validation,
)
from lotcal_tf.analysis.document import Chapter, Picture, Section, Table, Text
from lotcal_tf.analysis.groups import BASELINE, PLAIN, Group, Setting
from lotcal_tf.analysis.label_noise import studies
from lotcal_tf.analysis.predictions import Measured, measure, pooled
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.analysis.statistics import Summary, paired_difference, summarise
from lotcal_tf.analysis.texts import deviated, number, with_interval

# Metrics of the tables in their order: those of `metrics.csv`, and those of stored predictions.
_RAW = {
    "accuracy": "Accuracy, %",
    "ece": "ECE",
    "debiased_ece": "Debiased ECE",
    "nll": "NLL",
    "brier": "Brier score",
}
_AFTER = {
    "ece_scaled": "ECE",
    "debiased_ece_scaled": "Debiased ECE",
    "nll_scaled": "NLL",
    "brier_scaled": "Brier score",
}
_FURTHER = {
    "adaptive_ece": "Adaptive ECE",
    "classwise_ece": "Class-wise ECE",
    "mce": "MCE",
    "aurc": "AURC",
    "overconfidence": "Over-confidence",
}
_OF_PREDICTIONS = ("debiased_ece", "debiased_ece_scaled", "brier_scaled")
_DENSE = Place(1.0)
_NAME = "setting"
_TRANSFER = (
    "These runs start from tickets of other runs. In the name of a setting, tickets is the strategy that found them, "
    "and calib the one that trains them. A seed of tickets is that of the run that found them."
)
_OTHER_WEIGHTS = (
    "Models of the same seed have other initial weights in some settings, so differences between these settings are "
    "not those of the strategies alone."
)
_NO_TEST = (
    "Runs of this chapter have no test data. Figures and tables are of the test split, so these runs are missing in "
    "them; a ranking (--rank) needs validation data only."
)
_AVERAGED = (
    "With mc_eval, metrics of stochastic strategies are those of probabilities averaged over passes with dropout, "
    "which have a temperature of their own."
)
_OTHER_LEVELS = (
    "Runs have different numbers of levels, so means at sparse levels are over fewer seeds, and selected tickets may "
    "differ for this reason alone."
)
Parts = list[Text | Table | Picture]


class GroupChapter:
    """The chapter of one group.

    Args:
      group: the group.
      number: of the group, for the names of figures.
      densities: of the tables; None: the default.
      link: gives the link to a run directory.
      problems: gets a line for everything that is left out.
    """

    def __init__(
        self,
        group: Group,
        number: int,
        densities: Sequence[float] | None,
        link: Callable[[Path], str],
        problems: list[str],
    ) -> None:
        self.group, self.number, self.link = group, number, link
        self.places = places(group, densities)
        without = [d for d in densities or () if group.finished and Place(d) not in self.places]
        problems += [
            f"{group.title}: no finished run has a level within 10 % of the density {density:g}"
            for density in without
        ]
        found = measure(group, [_DENSE, *self.places], problems)
        self.measured = {(id(one.run), one.level): one for one in found}
        self.rows: list[Row] = []

    def chapter(self) -> Chapter:
        """The chapter. `rows` then holds its numbers."""
        warnings = worse_on_validation(self.group, self.places)
        about = [Text([line], warns=True) for line in warnings]
        if self.group.seeds_differ_in_weights:
            about.append(Text([_OTHER_WEIGHTS], warns=True))
        if len({len(run.weights) for run in self.group.finished}) > 1:
            about.append(Text([_OTHER_LEVELS], warns=True))
        if not all(run.has_test for run in self.group.finished):
            about.insert(0, Text([_NO_TEST]))
        if any(run.field("mc_eval") for run in self.group.finished):
            about.insert(0, Text([_AVERAGED]))
        if self.group.is_transfer:
            about.insert(0, Text([_TRANSFER]))
        sections: list[tuple[str, Parts]] = []
        if self.group.settings:
            sections = [
                ("Metrics against density", self._curves("metrics", METRICS)),
                ("Reliability", self._reliability()),
                ("Metrics at chosen densities", self._means(_RAW)),
                *self._difference_sections(),
                ("After temperature scaling", self._after_scaling()),
                ("Corrupted images", self._on_corrupted()),
                ("Unseen data", self._on_unseen()),
                *self._descents(),
                ("Selected tickets", [self._selected()]),
                ("Single runs", self._single()),
            ]
            self._add_values()
        else:
            about.append(Text(["No run is finished, so there is nothing to compare yet."]))
        sections.append(("Runs", [self._runs()]))
        whole = [Section(title, parts) for title, parts in sections if parts]
        return Chapter(self.group.title, about, whole)

    # Figures

    def _curves(self, name: str, columns: Mapping[str, str]) -> Parts:
        shown = {f"test_{column}": title for column, title in columns.items()}
        settings = [s for s in self.group.settings if any(curve(s, c) for c in shown)]
        caption = (
            "Test split; lines are means over seeds, bands 95 % intervals of the mean (Student's t; none for one "
            "seed). The axes cut bands that are much wider than the lines are apart."
        )
        parts: Parts = []
        for place, chunk in enumerate(chunks(settings)):
            figure = figures.curves(chunk, shown)
            parts.append(figures.picture(self._figure(name, place), figure, caption))
        return parts

    def _reliability(self) -> Parts:
        panels = []
        for setting in self.group.settings:
            lines = []
            for name, place in (("dense", _DENSE), ("selected", SELECTED)):
                levels = [(run, place.level(run)) for run in setting.runs.values()]
                keys = [(id(run), level) for run, level in levels if level is not None]
                bins = [self.measured[key].bins for key in keys if key in self.measured]
                if bins and len({one.counts.size for one in bins}) == 1:
                    lines.append((name, pooled(bins)))
            if lines:
                panels.append((setting.label, lines))
        caption = (
            "Reliability of the dense network and of the selected ticket on the test split, all seeds together, also "
            "in the ECE: below the diagonal a network is over-confident. Below, the share of examples in each bin."
        )
        return [
            figures.picture(self._figure("reliability", n), figures.reliability(chunk), caption)
            for n, chunk in enumerate(panels[at : at + 9] for at in range(0, len(panels), 9))
        ]

    def _figure(self, name: str, place: int) -> str:
        return f"group_{self.number}_{name}" + (f"_{place + 1}" if place else "")

    # Tables over seeds

    def _means(self, metrics: Mapping[str, str]) -> Parts:
        parts: Parts = []
        for metric, title in metrics.items():
            rows = []
            for setting in self.group.settings:
                found = [summarise(self._values(p, setting, metric).values()) for p in self.places]
                self._add("mean", setting, metric, found)
                if any(found):
                    seeds = max(one.n for one in found if one)
                    cells = [deviated(one, *_form(metric)) + _fewer(one, seeds) for one in found]
                    rows.append([setting.label, str(seeds), *cells])
            if rows:
                parts.append(Table(title, [[_NAME, "seeds", *self._titles()], *rows]))
        note = (
            "Test split, mean ± standard deviation over seeds. Columns are shares of weights kept (the nearest level "
            "within 10 %), and each run's selected level."
        )
        return [Text([note]), *parts] if parts else []

    def _difference_sections(self) -> list[tuple[str, Parts]]:
        """A section for each field in which settings differ from an otherwise equal plain one."""
        tables = {field: self._differences(_RAW, field) for field in PLAIN}
        if not any(tables.values()) and len(self.group.settings) > 1:
            words = f"No setting has a counterpart with the strategy {BASELINE}."
            return [(f"Differences from {BASELINE}", [Text([words])])]
        return [(f"Differences from {_plain(field)}", parts) for field, parts in tables.items()]

    def _differences(self, metrics: Mapping[str, str], field: str) -> Parts:
        """Tables of the settings minus those with the plain value of a field; nothing if none has such a setting."""
        plain = _plain(field)
        pairs = [(one, self.group.baseline(one, field)) for one in self.group.settings]
        parts: Parts = []
        for metric, title in metrics.items():
            rows = []
            for setting, baseline in pairs:
                if baseline is None:
                    continue
                differences = [
                    paired_difference(*(self._values(p, s, metric) for s in (setting, baseline)))
                    for p in self.places
                ]
                self._add(f"difference from {plain}", setting, metric, differences)
                if any(differences):
                    seeds = max(one.n for one in differences if one)
                    form, factor = _form(metric)
                    cells = [
                        with_interval(one, f"+{form}", factor) + _fewer(one, seeds)
                        for one in differences
                    ]
                    rows.append([setting.label, str(seeds), *cells])
            if rows:
                points = title.replace(", %", ", percentage points")
                words = f"{points}: difference from {plain}"
                parts.append(Table(words, [[_NAME, "seeds", *self._titles()], *rows]))
        note = (
            f"A setting minus the one with {'the strategy ' * (field == 'calib')}{plain} that is otherwise the same, "
            "paired by seed: mean and 95 % interval (Student's t). One seed has no interval, so its difference may be "
            "chance."
        )
        return [Text([note]), *parts] if parts else []

    def _after_scaling(self) -> Parts:
        note = (
            "Logits are divided by one temperature per level, fitted on the validation split. This does not change the "
            "accuracy."
        )
        return self._compared("scaled", note, SCALED, _AFTER)

    def _on_corrupted(self) -> Parts:
        found = {run.corruptions for run in self.group.finished if run.corruptions}
        if len(found) > 1:
            words = (
                "The runs were measured on different corruptions, so they are not compared: measure all of them with "
                "the same --shift and --severity."
            )
            return [Text([words], warns=True)]
        names: dict[str, list[str]] = {}
        for name, severity in sorted(*found) if found else ():
            names.setdefault(name, []).append(str(severity))
        words = "; ".join(f"{name} {', '.join(own)}" for name, own in names.items())
        note = f"Means over these corruptions of the test images and their severities: {words}."
        titles = {**SHIFTED, "shifted_accuracy": _RAW["accuracy"]}
        return self._compared("shifted", note, SHIFTED, titles)

    def _on_unseen(self) -> Parts:
        titles: dict[str, str] = {}
        for name in sorted({name for run in self.group.finished for name in run.unseen}):
            titles[f"auroc_{name}"] = f"AUROC of confidence, {name}"
            titles[f"confidence_{name}"] = f"Mean confidence on {name}"
        note = (
            "Data of another task, whose classes the network does not know. AUROC: the share of pairs of a known and "
            "an unseen example in which the known one has the higher confidence; 0.5 is chance."
        )
        return self._compared("unseen", note, titles, titles)

    def _compared(
        self, name: str, note: str, curves: Mapping[str, str], tables: Mapping[str, str]
    ) -> Parts:
        """A note, curves, means and differences; nothing if no run has these metrics."""
        means = self._means(tables)
        if not means:
            return []
        differences = [part for field in PLAIN for part in self._differences(tables, field)]
        return [Text([note]), *self._curves(name, curves), *means, *differences]

    def _titles(self) -> list[str]:
        return [place.title for place in self.places]

    def _values(self, place: Place, setting: Setting, metric: str) -> dict[Any, float]:
        """A test metric at a place, by replicate."""
        if metric not in _OF_PREDICTIONS:
            return place.values(setting, f"test_{metric}")
        found = {}
        for replicate, run in setting.runs.items():
            measured = self._at(run, place)
            if measured is not None and metric in measured.metrics:
                found[replicate] = measured.metrics[metric].value
        return found

    def _at(self, run: RecordedRun, place: Place) -> Measured | None:
        level = place.level(run)
        return None if level is None else self.measured.get((id(run), level))

    def _add(
        self, kind: str, setting: Setting, metric: str, found: Sequence[Summary | None]
    ) -> None:
        self.rows += [
            Row.of(self.group.title, setting.label, kind, f"test_{metric}", title, one)
            for title, one in zip(self._titles(), found, strict=True)
            if one is not None
        ]

    # Tables of runs

    def _selected(self) -> Table:
        head = [
            _NAME,
            "seed",
            "level",
            "kept",
            "weights",
            "accuracy, %",
            "ECE",
            "NLL",
            "temperature",
        ]
        names = ("density", "weights", "test_accuracy", "test_ece", "test_nll")
        forms = (".1%", ",.0f", ".2f", ".4f", ".4f", ".3f")
        rows = []
        for setting in self.group.settings:
            for run in setting.runs.values():
                if run.selected is not None:
                    own = [*names, "mc_temperature" if run.field("mc_eval") else "temperature"]
                    cells = [
                        number(run.metric(name, run.selected), form, _factor(name))
                        for name, form in zip(own, forms, strict=True)
                    ]
                    rows.append([setting.label, _seed(run), str(run.selected), *cells])
        note = (
            "The sparsest level from 1 on whose validation NLL is within one standard error of the lowest. Test "
            "metrics are not used for the selection."
        )
        return Table("", [head, *rows], note=note)

    def _single(self) -> Parts:
        parts: Parts = []
        tables = ("", _RAW), ("Further metrics", _FURTHER), ("After temperature scaling", _AFTER)
        for title, metrics in tables:
            rows = []
            for setting in self.group.settings:
                for run in setting.runs.values():
                    own = {m.level: m for p in self.places if (m := self._at(run, p)) is not None}
                    for level, measured in sorted(own.items()):
                        if not metrics.keys() & measured.metrics.keys():
                            continue
                        cells = [with_interval(measured.metrics.get(n), *_form(n)) for n in metrics]
                        kept = number(run.metric("density", level), ".1%")
                        mark = " (selected)" if level == run.selected else ""
                        rows.append([setting.label, _seed(run), f"{kept}{mark}", *cells])
            if rows:
                head = [_NAME, "seed", "kept", *metrics.values()]
                parts.append(Table(title, [head, *rows], words=("kept",)))
        note = (
            "Test split, with 95 % intervals from the stored predictions: of the mean over test sets of the "
            "same size, for this network. They do not cover the spread over seeds. The debiased ECE "
            "(Kumar, Liang & Ma 2019) is the root of the mean squared gap of the bins, without the part that is "
            "due to chance; it is 0 for a calibrated network, where the ECE is above 0."
        )
        return [Text([note]), *parts] if parts else []

    def _runs(self) -> Table:
        rows, links = [], []
        for run in self.group.runs:
            seconds = run.columns.get("seconds")
            known = () if seconds is None else seconds[np.isfinite(seconds)]
            time = time_text(float(np.sum(known))) if len(known) else "–"
            levels = f"{len(run.weights)} of {run.planned}"
            if run.is_finished:
                levels = str(len(run.weights))
            cells = [self.group.label(run), _seed(run), levels, time, _status(run)]
            rows.append(cells)
            links.append(self.link(run.directory))
        note = (
            "Levels include level 0; time is that of training. Each row links to the run directory."
        )
        head = ["run", "seed", "levels", "time", "status"]
        return Table("", [head, *rows], ("status",), links, note)

    # Label noise

    def _descents(self) -> list[tuple[str, Parts]]:
        named = studies([self.group])
        sections = []
        for place, one in enumerate(named):
            prefix = self._figure("", place).rstrip("_") + "_"
            parts: Parts = [*label_noise_section.section(one.study, prefix)]
            title = "Descent and best tickets" + (f", {one.words}" if len(named) > 1 else "")
            sections.append((title, parts))
            self.rows += label_noise_section.rows(one.study, self.group.title, one.words)
        return sections

    def _add_values(self) -> None:
        """Adds the values of all runs and levels, and those of stored predictions with their intervals."""
        title = self.group.title
        names = [f"{split}_{n}" for split in ("val", "test") for n in (*METRICS, *SCALED)]
        for setting in self.group.settings:
            for run in setting.runs.values():
                for level, density in enumerate(run.columns["density"]):
                    known: dict[str, Any] = {"seed": _seed(run), "level": level, "density": density}
                    for name in names:
                        if (value := run.metric(name, level)) is not None:
                            self.rows.append(Row(title, setting.label, "run", name, value, **known))
                    measured = self.measured.get((id(run), level))
                    for name, one in (measured.metrics if measured else {}).items():
                        self.rows.append(
                            Row(title, setting.label, "interval", f"test_{name}", one.value,
                                low=one.low, high=one.high, **known)
                        )  # fmt: skip


def ranking(
    groups: Sequence[Group], metric: str, densities: Sequence[float] | None
) -> tuple[Chapter, list[Row]]:
    """The chapter that ranks settings on validation data.

    A table is for all groups on the same data that have the same densities.
    """
    comparable: dict[tuple[str, tuple[str, ...], Any], list[tuple[Group, Setting]]] = {}
    for group in groups:
        at = tuple(sorted((p.title for p in ranking_places(group, densities)), key=_share))
        for setting in group.settings:
            key = group.data, at, setting.values.get(DIFFICULTY)
            comparable.setdefault(key, []).append((group, setting))
    sections, rows = [], []
    for (_, titles, hard), own in comparable.items():
        ranked = rank(own, metric, densities)
        if not ranked:
            continue
        first, *others = dict.fromkeys(group.title for group, _ in own)
        title = (
            f"{first}, and {len(others)} other group{'s' * (len(others) != 1)}" if others else first
        )
        title += "" if hard is None else f", {DIFFICULTY}={hard:g}"
        parts: Parts = [_ranking(ranked, metric, titles, bool(others))]
        known = {id(one.setting) for one in ranked}
        left_out = [setting.label for _, setting in own if id(setting) not in known]
        if left_out:
            line = f"Not ranked, without {metric} at one of these densities: {'; '.join(left_out)}."
            parts.append(Text([line], warns=True))
        sections.append(Section(title, parts))
        rows += [
            Row.of(r.group.title, r.setting.label, "rank", metric, "+".join(titles), r.value)
            for r in ranked
        ]
    why = f"No finished run has the column {metric} at these densities."
    if not any(group.settings for group in groups):
        why = "No run is finished, so there is nothing to rank yet."
    return Chapter(f"Ranking by {metric}", [] if sections else [Text([why])], sections), rows


def _ranking(ranked: Sequence[Ranked], metric: str, titles: Sequence[str], several: bool) -> Table:
    unit = ", %" if _factor(metric) != 1 else ""
    head = [_NAME, "seeds", f"{metric}{unit}", "validation accuracy, %", ""]
    rows = []
    for one in ranked:
        name = f"{one.setting.label} ({one.group.title})" if several else one.setting.label
        value = with_interval(one.value, *_form(metric))
        accuracy = deviated(one.accuracy, *_form("accuracy"))
        rows.append([name, str(one.value.n), value, accuracy, one.verdict])
    note = (
        f"Validation data only: mean over the densities {', '.join(titles)} and over seeds, with the 95 % interval "
        "of the mean over seeds. best: the best setting of its strategy, among those whose accuracy is at most "
        f"0.2 points below that of {BASELINE}."
    )
    return Table("", [head, *rows], words=("",), note=note)


def relative_link(out: Path) -> Callable[[Path], str]:
    """Links from the page to directories, relative to it, so that both can be moved together."""

    def link(directory: Path) -> str:
        return urllib.parse.quote(os.path.relpath(directory, out.parent)) + "/"

    return link


def chunks(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Settings for one figure each; the first setting is in all of them, for comparison."""
    first, others, size = [*settings[:1]], settings[1:], figures.MOST - 1
    parts = [list(others[at : at + size]) for at in range(0, len(others), size)]
    return [first + part for part in parts or ([[]] if first else [])]


def _share(title: str) -> float:
    return -float(title.rstrip(" %"))


def _seed(run: RecordedRun) -> str:
    source = "" if run.source is None else f" (tickets: {run.source.replicate})"
    return f"{run.seed}{source}"


def _status(run: RecordedRun) -> str:
    if run.failed:
        return f"failed: {run.failed}"
    return "finished" if run.is_finished else "unfinished, not in the means"


def time_text(seconds: float) -> str:
    """A time that was measured, e.g. `9.9 s`, `1 min 15 s` or `2 h 03 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if seconds < 10:
        return f"{seconds:.1f} s"
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{rest} s"
    )


def _factor(metric: str) -> float:
    """The factor of a metric in tables."""
    return 100.0 if "accuracy" in metric else 1.0


def _form(metric: str) -> tuple[str, float]:
    """The format and the factor of a metric in tables."""
    factor = _factor(metric)
    return ".4f" if factor == 1 else ".2f", factor


def _fewer(found: Summary | None, seeds: int) -> str:
    """The number of seeds where it is not that of the row."""
    return "" if found is None or found.n == seeds else f" (n = {found.n})"


def _plain(field: str) -> str:
    """The setting that others are compared with, in words."""
    return BASELINE if field == "calib" else f"{field}={PLAIN[field]}"
