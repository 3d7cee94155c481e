//! Plots of groups, as SVG in a page.
//!
//! The colours are constants; the page's style gives those of a dark screen to them, by their values.

use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
};

use super::{
    compare::Compared,
    show,
    table::{names, places},
};
use crate::serve::bench::report::{Axis, Group, Measurement, Scale, Unit};

/// Text, axes and lines of the grid.
pub(super) const INK: RGBColor = RGBColor(31, 35, 40);
const MUTED: RGBColor = RGBColor(101, 109, 118);
const GRID: RGBColor = RGBColor(222, 226, 230);
/// Names in a plot, in turn. They differ in lightness too.
pub(super) const SERIES: [RGBColor; 6] = [
    RGBColor(9, 105, 218),
    RGBColor(188, 76, 0),
    RGBColor(26, 127, 55),
    RGBColor(130, 80, 223),
    RGBColor(191, 57, 137),
    RGBColor(77, 45, 0),
];
/// The colours above, as the style of the page names them: a variable, and the colour in the dark.
pub(super) const DARK: [(RGBColor, RGBColor); 9] = [
    (INK, RGBColor(230, 237, 243)),
    (MUTED, RGBColor(145, 152, 161)),
    (GRID, RGBColor(48, 54, 61)),
    (SERIES[0], RGBColor(68, 147, 248)),
    (SERIES[1], RGBColor(240, 136, 62)),
    (SERIES[2], RGBColor(63, 185, 80)),
    (SERIES[3], RGBColor(171, 125, 248)),
    (SERIES[4], RGBColor(219, 97, 162)),
    (SERIES[5], RGBColor(227, 179, 65)),
];

const WIDTH: u32 = 760;
const FONT: &str = "sans-serif";
const TEXT: i32 = 13;
/// The width of a letter, about.
const LETTER: f64 = 7.2;
/// Values that differ by more than this are drawn on a logarithmic axis.
const SPREAD: f64 = 30.0;

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed = DrawingAreaErrorKind<std::io::Error>;

/// The group as a picture. What is drawn into a text does not fail.
pub(super) fn svg(group: &Group, old: Option<&Compared>) -> Option<String> {
    let (mut text, series) = (String::new(), names(group));
    let places = places(group);
    let height = match group.axis {
        Some(_) => 320,
        None => 70 + 30 * group.measurements.len() as u32,
    };
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let drawn = match &group.axis {
            Some(axis) => lines(&root, group, axis, &series, &places),
            None => dots(&root, group, old),
        };
        drawn.ok()?;
        root.present().ok()?;
    }
    Some(text)
}

/// Values in the unit that fits the largest of them.
struct Fit {
    factor: f64,
    unit: &'static str,
}

impl Fit {
    fn of(unit: Unit, most: f64) -> Self {
        let (factor, unit) = match (unit, most) {
            (Unit::Ms, most) if most < 1.0 => (1e3, "µs"),
            (Unit::Ms, most) if most < 2e3 => (1.0, "ms"),
            (Unit::Ms, _) => (1e-3, "s"),
            (Unit::PerSecond, _) => (1.0, "requests a second"),
            (Unit::Bytes, most) if most < f64::from(2 << 20) => (1.0 / 1024.0, "KiB"),
            (Unit::Bytes, _) => (1.0 / f64::from(1 << 20), "MiB"),
            (Unit::Count, _) => (1.0, "number"),
        };
        Self { factor, unit }
    }
}

/// An axis whose marks stand at given places.
struct Marked {
    range: RangedCoordf64,
    marks: Vec<f64>,
}

impl Marked {
    fn new(range: std::ops::Range<f64>, marks: Vec<f64>) -> Self {
        Self {
            range: range.into(),
            marks,
        }
    }
}

impl Ranged for Marked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.range()
    }
}

fn text_style(color: RGBColor) -> TextStyle<'static> {
    (FONT, TEXT).into_font().color(&color)
}

/// The lowest and the highest value that is drawn, with the ends of intervals.
fn range<'a>(all: impl Iterator<Item = &'a Measurement>, with_tail: bool) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for it in all {
        let [least, most] = it.interval.unwrap_or([it.value; 2]);
        let tail = it
            .percentiles
            .filter(|_| with_tail)
            .map_or(most, |it| it.p99);
        low = low.min(least).min(it.value);
        high = high.max(most).max(it.value).max(tail);
    }
    (low, if high > 0.0 { high } else { 1.0 })
}

/// A row for each measurement: a dot at the median, a bar over its interval, a thin line to p99; a
/// ring where it was before.
fn dots(root: &Drawing<'_>, group: &Group, old: Option<&Compared>) -> Result<(), Failed> {
    let all = || group.measurements.iter();
    let before = |it: &Measurement| old.and_then(|old| Some(old.of(it)?.0.clone()));
    let earlier: Vec<Measurement> = all().filter_map(before).collect();
    let (low, high) = range(all().chain(&earlier), true);
    let fit = Fit::of(group.unit, high);
    let (low, high) = (low * fit.factor, high * fit.factor);
    let longest = all().map(|it| it.name.chars().count()).max().unwrap_or(0);
    let margin = (longest as f64 * LETTER).clamp(40.0, 300.0) as u32 + 12;
    let mut chart = ChartBuilder::on(root);
    chart
        .margin(8)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(margin);
    let rows = group.measurements.len() as f64;
    let named = |at: &f64| {
        let index = rows - 1.0 - at;
        let it = group.measurements.get(index.round() as usize);
        it.map_or_else(String::new, |it| it.name.clone())
    };
    let keys: Vec<f64> = (0..group.measurements.len()).map(|it| it as f64).collect();
    let rows = Marked::new(-0.6..rows - 0.4, keys);
    if low > 0.0 && high / low > SPREAD {
        let values = (low / 1.6..high * 1.6).log_scale();
        let chart = chart.build_cartesian_2d(values, rows)?;
        row_marks(chart, group, old, &fit, &named)
    } else {
        let chart = chart.build_cartesian_2d(0.0..high * 1.08, rows)?;
        row_marks(chart, group, old, &fit, &named)
    }
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn row_marks<X, Y>(
    mut chart: Chart<'_, '_, X, Y>,
    group: &Group,
    old: Option<&Compared>,
    fit: &Fit,
    named: &dyn Fn(&f64) -> String,
) -> Result<(), Failed>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_y_mesh()
        .axis_style(MUTED)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .label_style(text_style(INK))
        .x_desc(fit.unit)
        .axis_desc_style(text_style(MUTED))
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| named(value))
        .draw()?;
    let rows = group.measurements.len();
    for (index, it) in group.measurements.iter().enumerate() {
        let (y, at) = ((rows - 1 - index) as f64, |value: f64| value * fit.factor);
        let [low, high] = it.interval.unwrap_or([it.value; 2]).map(at);
        let color = SERIES[0];
        if let Some(spread) = &it.percentiles {
            let line = vec![(at(it.value), y), (at(spread.p99), y)];
            chart.draw_series([PathElement::new(line, color)])?;
            let end = vec![(at(spread.p99), y - 0.18), (at(spread.p99), y + 0.18)];
            chart.draw_series([PathElement::new(end, color)])?;
        }
        let bar = vec![(low, y), (high, y)];
        chart.draw_series([PathElement::new(bar, color.stroke_width(5))])?;
        chart.draw_series([Circle::new((at(it.value), y), 5, color.filled())])?;
        if let Some((old, _)) = old.and_then(|old| old.of(it)) {
            let ring = Circle::new((at(old.value), y), 6, SERIES[1].stroke_width(2));
            chart.draw_series([ring])?;
        }
    }
    Ok(())
}

/// A line for each name, with a dot and the interval at each place.
fn lines(
    root: &Drawing<'_>,
    group: &Group,
    axis: &Axis,
    series: &[&str],
    places: &[f64],
) -> Result<(), Failed> {
    let (low, high) = range(group.measurements.iter(), false);
    let fit = Fit::of(group.unit, high);
    let (low, high) = (low * fit.factor, high * fit.factor);
    let (first, last) = match axis.scale {
        Scale::Steps => (-0.3, places.len() as f64 - 0.7),
        Scale::Linear => (
            places.first().copied().unwrap_or(0.0),
            places.last().copied().unwrap_or(1.0).max(1e-9),
        ),
    };
    let mut chart = ChartBuilder::on(root);
    chart
        .margin(8)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(74);
    let plot = Lines {
        group,
        axis,
        series,
        places,
        fit,
    };
    if low > 0.0 && high / low > SPREAD {
        let values = (low / 1.6..high * 1.6).log_scale();
        plot.along(&mut chart, first..last, values)
    } else {
        plot.along(&mut chart, first..last, 0.0..high * 1.12)
    }
}

struct Lines<'a> {
    group: &'a Group,
    axis: &'a Axis,
    series: &'a [&'a str],
    places: &'a [f64],
    fit: Fit,
}

impl Lines<'_> {
    fn along<Y>(
        &self,
        chart: &mut ChartBuilder<'_, '_, SVGBackend<'_>>,
        x: std::ops::Range<f64>,
        values: Y,
    ) -> Result<(), Failed>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        match self.axis.scale {
            Scale::Steps => {
                let keys = (0..self.places.len()).map(|it| it as f64).collect();
                let x = Marked::new(x, keys);
                self.draw(chart.build_cartesian_2d(x, values)?)
            }
            Scale::Linear => {
                self.draw(chart.build_cartesian_2d::<RangedCoordf64, Y>(x.into(), values)?)
            }
        }
    }

    fn draw<'a, 'b: 'a, X, Y>(&self, mut chart: Chart<'a, 'b, X, Y>) -> Result<(), Failed>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let is_stepped = self.axis.scale == Scale::Steps;
        let place = |at: &f64| match is_stepped {
            true => {
                let place = self.places.get(at.round() as usize);
                place.map_or_else(String::new, |x| show::place(*x))
            }
            false => tick(*at),
        };
        chart
            .configure_mesh()
            .axis_style(MUTED)
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .label_style(text_style(INK))
            .axis_desc_style(text_style(MUTED))
            .x_desc(self.axis.label.as_str())
            .y_desc(self.fit.unit)
            .x_label_formatter(&place)
            .y_labels(8)
            .y_label_formatter(&|value| tick(*value))
            .draw()?;
        for (index, name) in self.series.iter().enumerate() {
            let color = SERIES[index % SERIES.len()];
            let mut all: Vec<(f64, &Measurement)> = Vec::new();
            for it in self.group.measurements.iter().filter(|it| it.name == *name) {
                let Some(x) = it.x else { continue };
                let step = self.places.iter().position(|place| *place == x);
                all.push((
                    if is_stepped {
                        step.unwrap_or(0) as f64
                    } else {
                        x
                    },
                    it,
                ));
            }
            all.sort_by(|one, other| one.0.total_cmp(&other.0));
            let factor = self.fit.factor;
            let points = all.iter().map(|(x, it)| (*x, it.value * factor));
            let line = LineSeries::new(points.clone(), color.stroke_width(2));
            chart.draw_series(line)?;
            if is_stepped {
                for (x, it) in &all {
                    let [low, high] = it.interval.unwrap_or([it.value; 2]);
                    let bar = vec![(*x, low * factor), (*x, high * factor)];
                    chart.draw_series([PathElement::new(bar, color.stroke_width(5))])?;
                }
                chart.draw_series(points.map(|at| Circle::new(at, 4, color.filled())))?;
            }
        }
        Ok(())
    }
}

/// A number at an axis.
fn tick(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.995 => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').to_owned()
        }
        some if some < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        _ => show::place(value.round()),
    }
}
