//! The curve of a step: as a table, and as a picture.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

/// One second.
pub(super) struct Point {
    pub(super) second: u64,
    /// Requests that were sent.
    pub(super) load: f64,
    /// Pods that were wanted, and that were ready, at its end.
    pub(super) replicas: u32,
    pub(super) ready: u32,
    /// Of the requests that were sent in it.
    pub(super) p99: Option<Duration>,
}

pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    /// When the load came and went, in seconds.
    pub(super) step: f64,
    pub(super) end: f64,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 72.0;
const PANEL: f64 = 90.0;
const GAP: f64 = 28.0;

impl Curve {
    /// Writes both to where they are wanted, or the table to where builds leave things.
    pub(super) fn write(&self) {
        let asked = std::env::var_os("SAMPAN_CURVE").map(PathBuf::from);
        let directory = asked
            .clone()
            .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        fs::write(directory.join("autoscale.csv"), self.table()).expect("written");
        if asked.is_some() {
            fs::write(directory.join("autoscale.svg"), self.picture()).expect("written");
        }
    }

    fn table(&self) -> String {
        let mut text = String::from("second,requests_per_second,replicas,ready,p99_ms\n");
        for point in &self.points {
            let p99 = point.p99.map(|it| format!("{:.1}", it.as_secs_f64() * 1e3));
            writeln!(
                text,
                "{},{:.0},{},{},{}",
                point.second,
                point.load,
                point.replicas,
                point.ready,
                p99.unwrap_or_default()
            )
            .expect("memory");
        }
        text
    }

    fn picture(&self) -> String {
        let seconds = self.points.len().max(1) as f64;
        let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - 12.0);
        let value = |name: &str, unit: &str, of: &dyn Fn(&Point) -> Option<f64>| {
            (
                name.to_owned(),
                unit.to_owned(),
                self.points.iter().map(of).collect::<Vec<_>>(),
            )
        };
        let panels = [
            value("requests per second", "", &|it| Some(it.load)),
            value("pods", "", &|it| Some(it.ready.into())),
            value("p99", " ms", &|it| it.p99.map(|it| it.as_secs_f64() * 1e3)),
        ];
        let height = panels.len() as f64 * (PANEL + GAP) + 24.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        for (number, (name, unit, values)) in panels.iter().enumerate() {
            let top = GAP + number as f64 * (PANEL + GAP);
            let bottom = top + PANEL;
            let most = values.iter().flatten().copied().fold(1.0, f64::max);
            let y = |value: f64| bottom - value / most * PANEL;
            writeln!(
                svg,
                "<text x=\"{LEFT}\" y=\"{}\" fill=\"#333\">{name}</text>\n\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#333\">{most:.0}{unit}</text>\n\
                 <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\" fill=\"#333\">0</text>\n\
                 <path d=\"M{LEFT} {bottom}H{}\" stroke=\"#bbb\"/>",
                top - 6.0,
                LEFT - 6.0,
                top + 10.0,
                LEFT - 6.0,
                WIDTH - 12.0
            )
            .expect("memory");
            let mut path = String::new();
            for (second, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let (from, to) = (x(second as f64), x(second as f64 + 1.0));
                let pen = if path.is_empty() { 'M' } else { 'L' };
                write!(path, "{pen}{from:.1} {:.1}H{to:.1}", y(*value)).expect("memory");
            }
            writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"#1565c0\" stroke-width=\"2\"/>"
            )
            .expect("memory");
        }
        for (second, what) in [(self.step, "the load comes"), (self.end, "and goes")] {
            let x = x(second);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {GAP}V{}\" stroke=\"#c62828\" stroke-dasharray=\"4 3\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\" fill=\"#c62828\">{what}, {second:.0} s</text>",
                height - 24.0,
                x + 4.0,
                height - 8.0
            )
            .expect("memory");
        }
        svg.push_str("</svg>\n");
        svg
    }
}
