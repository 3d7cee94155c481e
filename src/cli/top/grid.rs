//! Rows of short cells, laid out for a width.

use std::borrow::Cow;

use anstyle::Style;
use console::{measure_text_width as wide, truncate_str};
use textwrap::{Options, WordSplitter};

use crate::cli::output::one_line;

/// Below this width the last cell has lines of its own.
const LEAST_NOTE: usize = 24;
/// How far lines of a row stand in that are not its first.
const INDENT: usize = 4;
/// What stands for the rest of a text that was cut off.
const REST: &str = "…";

/// A cell: a short text, and how it looks on a terminal.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        let text = one_line(&text.into());
        Self { text, style }
    }
}

/// A row: as many cells as there are columns, and a note that may be long.
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    pub(super) note: String,
}

/// Rows below a head.
pub(super) struct Grid {
    /// Names of the columns.
    pub(super) heads: Vec<&'static str>,
    /// The name of the notes.
    pub(super) note: &'static str,
    /// Columns from the first on that stand to the left.
    pub(super) left: usize,
    pub(super) rows: Vec<Row>,
}

/// A grid as lines.
pub(super) struct Lines {
    pub(super) head: Vec<String>,
    /// Of each row.
    pub(super) rows: Vec<Vec<String>>,
}

/// Where cells go.
struct Layout<'a> {
    widths: &'a [usize],
    left: usize,
    gap: usize,
    /// How far lines of a row stand in that are not its first.
    indent: usize,
    /// Columns that share a line: from one of these to the next.
    bands: Vec<std::ops::Range<usize>>,
    /// Where notes begin, and how wide they are.
    note: Note,
}

#[derive(Clone, Copy)]
enum Note {
    /// Behind the cells.
    Beside { width: usize },
    /// Below them.
    Below { width: usize },
}

impl Grid {
    /// The grid in lines of at most this width. `widths` are those of the columns the last time:
    /// none becomes narrower, so that nothing jumps to and fro.
    pub(super) fn lines(&self, columns: usize, widths: &mut Vec<usize>) -> Lines {
        widths.resize(self.heads.len(), 0);
        for (column, width) in widths.iter_mut().enumerate() {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
            let texts = cells.map(|cell| wide(&cell.text));
            let widest = texts.chain([wide(self.heads[column])]).max();
            *width = (*width).max(widest.unwrap_or_default()).min(columns);
        }
        let layout = Layout::new(widths, self.left, columns);
        let bold = Style::new().bold();
        let heads = self.heads.iter().map(|head| Cell::styled(*head, bold));
        let has_notes = self.rows.iter().any(|row| !row.note.is_empty());
        let head = Row {
            cells: heads.collect(),
            note: match layout.note {
                Note::Beside { .. } if has_notes => self.note.to_owned(),
                Note::Beside { .. } | Note::Below { .. } => String::new(),
            },
        };
        Lines {
            head: layout.row(&head, "", bold),
            rows: self
                .rows
                .iter()
                .map(|row| layout.row(row, self.note, Style::new()))
                .collect(),
        }
    }
}

impl<'a> Layout<'a> {
    fn new(widths: &'a [usize], left: usize, columns: usize) -> Self {
        let widest = widths.iter().max().copied().unwrap_or_default();
        let indent = match widest + INDENT <= columns {
            true => INDENT,
            false => 0,
        };
        let total = |gap: usize| {
            let gaps = gap * widths.len().saturating_sub(1);
            widths.iter().sum::<usize>() + gaps
        };
        let beside = |gap: usize| {
            let width = columns.saturating_sub(total(gap) + gap);
            (width >= LEAST_NOTE).then_some((gap, Note::Beside { width }))
        };
        let below = Note::Below {
            width: columns.saturating_sub(indent).max(1),
        };
        let fitting = |gap: usize| (total(gap) <= columns).then_some((gap, below));
        let whole = 0..widths.len();
        let (bands, (gap, note)) = match beside(2)
            .or_else(|| beside(1))
            .or_else(|| fitting(2))
            .or_else(|| fitting(1))
        {
            Some(placed) => (vec![whole], placed),
            None => (bands(widths, indent, columns), (1, below)),
        };
        Self {
            widths,
            left,
            gap,
            indent,
            bands,
            note,
        }
    }

    /// The lines of a row.
    fn row(&self, row: &Row, name: &str, style: Style) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (number, band) in self.bands.iter().enumerate() {
            let mut line = match number {
                0 => String::new(),
                _ => " ".repeat(self.indent),
            };
            for column in band.clone() {
                let Some(cell) = row.cells.get(column) else {
                    continue;
                };
                if column > band.start {
                    line.push_str(&" ".repeat(self.gap));
                }
                self.cell(cell, column, &mut line);
            }
            lines.push(line);
        }
        if row.note.is_empty() {
            // A cell that stands to the left fills its column.
        } else if let Note::Beside { width } = self.note {
            let start: usize = self.widths.iter().sum::<usize>() + self.gap * self.widths.len();
            for (number, part) in wrap(&row.note, width).into_iter().enumerate() {
                match lines.get_mut(number) {
                    Some(line) => line.push_str(&" ".repeat(self.gap)),
                    None => lines.push(" ".repeat(start)),
                }
                lines[number].push_str(&format!("{style}{part}{style:#}"));
            }
        } else if let Note::Below { width } = self.note {
            for part in wrap(&format!("{name}: {}", row.note), width) {
                lines.push(format!("{}{part}", " ".repeat(self.indent)));
            }
        }
        lines
    }

    fn cell(&self, cell: &Cell, column: usize, line: &mut String) {
        let width = self.widths[column];
        let text = truncate_str(&cell.text, width, REST);
        let space = " ".repeat(width - wide(&text));
        let style = cell.style;
        let (before, after) = match column < self.left {
            true => ("", space.as_str()),
            false => (space.as_str(), ""),
        };
        line.push_str(&format!("{before}{style}{text}{style:#}{after}"));
    }
}

/// As many columns in each line as fit; the second and later lines stand in.
fn bands(widths: &[usize], indent: usize, columns: usize) -> Vec<std::ops::Range<usize>> {
    let (mut bands, mut start, mut used) = (Vec::new(), 0, 0);
    for (column, width) in widths.iter().enumerate() {
        let gap = usize::from(column > start);
        if column > start && used + gap + width > columns {
            bands.push(start..column);
            (start, used) = (column, indent);
        }
        used += usize::from(column > start) + width;
    }
    bands.push(start..widths.len());
    bands
}

/// The text in lines of at most this width, broken between words where that is possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1)).word_splitter(WordSplitter::NoHyphenation);
    let lines = textwrap::wrap(text, options).into_iter();
    lines.map(Cow::into_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one", 3), ["one"]);
        assert_eq!(wrap("abcdefg hi", 3), ["abc", "def", "g", "hi"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn no_line_is_too_wide_and_no_cell_is_lost() {
        let names = ["checkout", "w", "a-service-with-a-long-name"];
        let rows = || {
            names.map(|name| Row {
                cells: ["1", "3/5", "312m 62%", "12%", "4.5MiB", "412µs"]
                    .iter()
                    .fold(vec![Cell::new(name)], |mut cells, text| {
                        cells.push(Cell::new(*text));
                        cells
                    }),
                note: "cpu 41% of 70%; 8 were needed within 5m".to_owned(),
            })
        };
        for columns in 1..160 {
            let grid = Grid {
                heads: vec![
                    "service", "ready", "replicas", "cpu", "held", "memory", "p50",
                ],
                note: "why",
                left: 1,
                rows: rows().into_iter().collect(),
            };
            let lines = grid.lines(columns, &mut Vec::new());
            assert_eq!(lines.rows.len(), 3);
            for line in lines.head.iter().chain(lines.rows.iter().flatten()) {
                let plain = anstream::adapter::strip_str(line).to_string();
                let seen = plain.trim_end();
                assert!(wide(seen) <= columns, "{columns}: `{seen}`");
            }
            if columns >= 26 {
                let text = lines.rows.concat().join(" ");
                for part in [
                    "checkout",
                    "a-service-with-a-long-name",
                    "62%",
                    "412µs",
                    "5m",
                ] {
                    assert!(text.contains(part), "{columns}: no {part} in {text}");
                }
            }
        }
    }

    #[test]
    fn columns_do_not_become_narrower() {
        let grid = |text: &str| Grid {
            heads: vec!["a", "b"],
            note: "why",
            left: 1,
            rows: vec![Row {
                cells: vec![Cell::new("x"), Cell::new(text)],
                note: String::new(),
            }],
        };
        let mut widths = Vec::new();
        grid("12345").lines(80, &mut widths);
        let lines = grid("1").lines(80, &mut widths);
        assert_eq!(widths, [1, 5]);
        assert_eq!(lines.rows, [["x      1"]]);
    }
}
