//! Lines at the end of what a terminal shows, drawn again and again in place.

use super::grid::Lines;
use crate::cli::output::{Size, count};

/// Begins and ends a picture that the terminal is to show whole. One that does not know it shows
/// it as it comes.
const WHOLE: [&str; 2] = ["\x1b[?2026h", "\x1b[?2026l"];
/// Erases what is right of the cursor.
const ERASE_LINE: &str = "\x1b[K";
/// Erases what is right of and below the cursor.
const ERASE_BELOW: &str = "\x1b[J";

/// The lines that were drawn last.
#[derive(Default)]
pub(super) struct Screen {
    /// How wide each is.
    widths: Vec<usize>,
}

impl Screen {
    /// What to write so that these lines take the place of the last ones. The cursor stands below
    /// them before and after.
    ///
    /// Nothing is erased that is not written again in the same breath, so nothing flickers.
    pub(super) fn draw(&mut self, lines: &[String], size: Size) -> String {
        // A terminal that has become narrower has broken the lines that were too wide for it.
        let rows = |width: &usize| width.div_ceil(size.columns.max(1)).max(1);
        let up: usize = self.widths.iter().map(rows).sum();
        let mut text = WHOLE[0].to_owned();
        // What has left the screen cannot be drawn again.
        match up.min(size.rows.saturating_sub(1)) {
            0 => {}
            up => text.push_str(&format!("\x1b[{up}A")),
        }
        text.push('\r');
        self.widths.clear();
        for line in lines {
            let width = console::measure_text_width(line);
            text.push_str(line);
            // Behind the last column there is nothing to erase but the last letter.
            if width < size.columns {
                text.push_str(ERASE_LINE);
            }
            text.push('\n');
            self.widths.push(width);
        }
        text.push_str(ERASE_BELOW);
        text.push_str(WHOLE[1]);
        text
    }

    /// What to write at the end: the lines stay, and what was typed below them goes.
    pub(super) fn leave(&self) -> String {
        format!("\r{ERASE_LINE}")
    }
}

/// A part of a table: what its rows are, and its lines.
pub(super) struct Section {
    pub(super) thing: &'static str,
    pub(super) lines: Lines,
}

/// The lines of these sections with an empty one between them, at most so many. If rows had to be
/// left out, the last line says how many.
pub(super) fn fit(sections: Vec<Section>, most: usize) -> Vec<String> {
    let all = |section: &Section| {
        section.lines.head.len() + section.lines.rows.iter().map(Vec::len).sum::<usize>()
    };
    let needed = sections.iter().map(all).sum::<usize>() + sections.len().saturating_sub(1);
    let is_whole = needed <= most;
    let mut room = if is_whole {
        needed
    } else {
        most.saturating_sub(1)
    };
    let (mut lines, mut left_out) = (Vec::new(), Vec::new());
    for Section { thing, lines: own } in sections {
        let gap = usize::from(!lines.is_empty());
        let first = own.rows.first().map_or(0, Vec::len);
        let mut missing = own.rows.len();
        if gap + own.head.len() + first <= room {
            room -= gap + own.head.len();
            lines.extend((0..gap).map(|_| String::new()));
            lines.extend(own.head);
            for row in own.rows {
                if row.len() > room {
                    break;
                }
                room -= row.len();
                missing -= 1;
                lines.extend(row);
            }
        }
        if missing > 0 {
            // No later section takes the place of an earlier one's rows.
            room = 0;
            left_out.push(count(missing, thing));
        }
    }
    if !left_out.is_empty() && most > 0 {
        lines.push(format!("… and {} more", left_out.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests;
