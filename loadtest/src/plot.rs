//! Charts on log axes, as SVG that is readable on a light and on a dark page.
//!
//! Written by hand rather than by a library: colours that follow the reader's scheme need a style sheet,
//! and two axes, a grid and lines are little else.

use serde::Serialize;

/// Panels side by side, over the same quantity.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    title: &'static str,
    /// What everything depends on, with its unit.
    x: &'static str,
    unit: Unit,
    panels: Vec<Panel>,
}

/// One pair of axes.
#[derive(Debug, Serialize)]
struct Panel {
    /// What is measured, with its unit.
    y: &'static str,
    series: Vec<Series>,
}

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Count,
    Bytes,
}

/// One line.
#[derive(Debug, Serialize)]
struct Series {
    name: &'static str,
    /// Pairs of x and y, in the order of x, all above zero.
    points: Vec<(f64, f64)>,
}

impl Chart {
    /// Without any points.
    pub(crate) const fn new(title: &'static str, x: &'static str, unit: Unit) -> Self {
        Self { title, x, unit, panels: Vec::new() }
    }

    /// Notes the next point of a line. Panels and lines come in the order of their first points.
    pub(crate) fn note(&mut self, y: &'static str, name: &'static str, point: (f64, f64)) {
        if !self.panels.iter().any(|panel| panel.y == y) {
            self.panels.push(Panel { y, series: Vec::new() });
        }
        for panel in self.panels.iter_mut().filter(|panel| panel.y == y) {
            match panel.series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => panel.series.push(Series { name, points: vec![point] }),
            }
        }
    }
}

const PANEL: f64 = 340.0;
const HEIGHT: f64 = 360.0;
/// Of the area within the axes, relative to its panel.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 304.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 282.0;

const STYLE: &str = "\
:root{--page:#fff;--ink:#1f2328;--dim:#59636e;--grid:#d8dee4;--a:#0550ae;--b:#bc4c00}\
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#f0f6fc;--dim:#9198a1;--grid:#2d333b;\
--a:#79c0ff;--b:#ffa657}}\
text{font:13px system-ui,sans-serif;fill:var(--ink)}.title{font-size:16px;font-weight:600}\
.dim{fill:var(--dim)}.page{fill:var(--page)}.grid{stroke:var(--grid)}.end{text-anchor:end}\
.middle{text-anchor:middle}.line{fill:none;stroke-width:2}.l0{stroke:var(--a)}.l1{stroke:var(--b);\
stroke-dasharray:6 3}.m0{fill:var(--a)}.m1{fill:var(--b)}";

/// The chart as SVG; `note` stands below it. At most two lines in a panel can be told apart.
pub(crate) fn svg(chart: &Chart, note: &str) -> String {
    let lefts = std::iter::successors(Some(0.0), |left| Some(left + PANEL));
    let panels = chart.panels.iter().zip(lefts).map(|(panel, left)| {
        format!("<g transform=\"translate({left} 0)\">\n{}\n</g>", draw(chart, panel))
    });
    let panels = panels.collect::<Vec<_>>().join("\n");
    let width = chart.panels.iter().fold(0.0, |width, _| width + PANEL);
    let (title, note) = (escape(chart.title), escape(note));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{title}</text>\n{panels}\n\
         <text class=\"dim\" x=\"16\" y=\"348\">{note}</text>\n</svg>\n"
    )
}

/// From one value to another on a log axis, and the values at which it is marked.
#[derive(Debug, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// The narrowest that has a mark at or beyond each end of the values, but ten times from end to end,
    /// so that what hardly grows looks like it.
    fn of(values: impl Iterator<Item = f64> + Clone, unit: Unit) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let all = match unit {
            Unit::Count if most / least < 99.0 => marks(10.0, &[1.0, 2.0, 5.0]),
            Unit::Count => marks(10.0, &[1.0]),
            Unit::Bytes => marks(16.0, &[4.0]),
        };
        let below = all.iter().rposition(|mark| *mark <= least * 1.000_1).unwrap_or(0);
        let lowest = all.get(below).copied().unwrap_or(least);
        let end = most.max(lowest * 10.0) * 0.999_9;
        let above = all.iter().position(|mark| *mark >= end);
        let above = above.unwrap_or(all.len().saturating_sub(1));
        let ticks: Vec<_> =
            all.into_iter().skip(below).take(above.saturating_sub(below) + 1).collect();
        let low = ticks.first().copied().unwrap_or(1.0);
        Self { low, high: ticks.last().copied().unwrap_or(10.0), ticks }
    }

    /// Where a value is, from 0 at the low end to 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }
}

/// Steps times powers of a base, from far below to far above all that is measured here.
fn marks(base: f64, steps: &[f64]) -> Vec<f64> {
    let powers = (-9..=15).map(|power| base.powi(power));
    powers.flat_map(|power| steps.iter().map(move |step| step * power)).collect()
}

fn draw(chart: &Chart, panel: &Panel) -> String {
    let points = panel.series.iter().flat_map(|series| &series.points);
    let across = Axis::of(points.clone().map(|point| point.0), chart.unit);
    let up = Axis::of(points.map(|point| point.1), Unit::Count);
    let x = |value: f64| (RIGHT - LEFT).mul_add(across.place(value), LEFT);
    let y = |value: f64| (TOP - BOTTOM).mul_add(up.place(value), BOTTOM);
    let middle = f64::midpoint(LEFT, RIGHT);
    let mut out =
        vec![text("", (16.0, 54.0), panel.y), text("dim middle", (middle, BOTTOM + 40.0), chart.x)];
    for tick in &across.ticks {
        let at = x(*tick);
        out.push(line((at, TOP), (at, BOTTOM)));
        out.push(text("dim middle", (at, BOTTOM + 20.0), &label(*tick, chart.unit)));
    }
    for tick in &up.ticks {
        let at = y(*tick);
        out.push(line((LEFT, at), (RIGHT, at)));
        out.push(text("dim end", (LEFT - 6.0, at + 4.0), &label(*tick, Unit::Count)));
    }
    for (number, series) in panel.series.iter().enumerate() {
        let color = number % 2;
        let path: Vec<_> = series.points.iter().map(|point| (x(point.0), y(point.1))).collect();
        let joined: Vec<_> = path.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let joined = joined.join(" ");
        out.push(format!("<polyline class=\"line l{color}\" points=\"{joined}\"/>"));
        out.extend(path.into_iter().map(|at| marker(color, at)));
        // The key to the lines, in two columns above the axes.
        let left = if color == 0 { 22.0 } else { 170.0 };
        out.push(marker(color, (left, 72.0)));
        out.push(text("", (left + 10.0, 76.0), series.name));
    }
    out.join("\n")
}

/// Circles and squares, so that colour is not needed to tell them apart.
fn marker(color: usize, (x, y): (f64, f64)) -> String {
    if color == 0 {
        return format!("<circle class=\"m0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
    }
    let (left, top) = (x - 3.5, y - 3.5);
    format!("<rect class=\"m1\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"7\" height=\"7\"/>")
}

fn line((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

fn text(class: &str, (x, y): (f64, f64), text: &str) -> String {
    let text = escape(text);
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")
}

/// A mark in as few characters as it takes.
fn label(value: f64, unit: Unit) -> String {
    let (factor, names) = match unit {
        Unit::Count => (1e3, ["", "k", "M", "G"]),
        Unit::Bytes => (1024.0, [" B", " KiB", " MiB", " GiB"]),
    };
    let (mut rest, mut name) = (value, 0);
    // A count keeps its digits up to a thousand and more: 1000 is read more easily than 1k.
    let end = if unit == Unit::Count { 10_000.0 } else { factor };
    if rest >= end * 0.999_9 {
        while rest >= factor * 0.999_9 && name + 1 < names.len() {
            rest /= factor;
            name += 1;
        }
    }
    // As many decimals as a value below one needs.
    let rounded = format!("{rest:.6}");
    let digits = rounded.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{}", names.get(name).unwrap_or(&""))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(values: &[f64], unit: Unit) -> Axis {
        Axis::of(values.iter().copied(), unit)
    }

    #[test]
    fn an_axis_is_marked_at_or_beyond_each_end() {
        assert_eq!(axis(&[1e3, 1e5], Unit::Count).ticks, [1e3, 1e4, 1e5]);
        assert_eq!(axis(&[10.0, 3_000.0], Unit::Count).ticks, [10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(axis(&[7.0, 160.0], Unit::Count).ticks, [5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        let bytes = axis(&[1024.0, 268_435_456.0], Unit::Bytes);
        assert_eq!((bytes.low, bytes.high, bytes.ticks.len()), (1024.0, 1_073_741_824.0, 6));
    }

    #[test]
    fn what_hardly_grows_looks_like_it() {
        assert_eq!(axis(&[30.0, 31.0], Unit::Count).ticks, [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(axis(&[5.0], Unit::Count).ticks, [5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn equal_factors_are_equally_far_apart() {
        let axis = axis(&[1.0, 10_000.0], Unit::Count);
        let places = [1.0, 10.0, 100.0, 10_000.0].map(|value| axis.place(value));
        for (place, expected) in places.into_iter().zip([0.0, 0.25, 0.5, 1.0]) {
            assert!((place - expected).abs() < 1e-9, "{places:?}");
        }
    }

    #[test]
    fn a_mark_is_short_and_exact() {
        let counts = [0.001, 0.2, 5.0, 1e3, 2e4, 1e6, 5e6].map(|value| label(value, Unit::Count));
        assert_eq!(counts, ["0.001", "0.2", "5", "1000", "20k", "1M", "5M"]);
        let sizes = [256.0, 4096.0, 268_435_456.0].map(|value| label(value, Unit::Bytes));
        assert_eq!(sizes, ["256 B", "4 KiB", "256 MiB"]);
    }

    #[test]
    fn every_point_is_drawn_within_its_axes_and_text_is_escaped() {
        let mut chart = Chart::new("<growth>", "objects", Unit::Count);
        for point in [(1e3, 0.3), (1e4, 4.0), (1e5, 40.0)] {
            chart.note("s", "a & b", point);
        }
        let image = svg(&chart, "a note");
        assert!(image.contains("&lt;growth&gt;") && image.contains("a &amp; b"));
        let at = |name: &str| -> Vec<f64> {
            let head = format!("{name}=\"");
            let parts = image.split(&head).skip(1);
            parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
        };
        // Three points and the key.
        let xs = at("cx");
        assert_eq!(xs.len(), 4);
        assert!(xs.iter().take(3).all(|x| (LEFT..=RIGHT).contains(x)), "{xs:?}");
        let lines = image.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let ys: Vec<f64> =
            lines.split([' ', ',']).skip(1).step_by(2).flat_map(str::parse).collect();
        assert_eq!(ys.len(), 3);
        assert!(ys.iter().all(|y| (TOP..=BOTTOM).contains(y)), "{ys:?}");
        assert!(ys.is_sorted_by(|high, low| high > low), "more is higher up: {ys:?}");
    }
}
