//! What is drawn, as a terminal shows it.

use super::*;

/// A terminal that knows what [`Screen`] writes, and breaks lines anew when it is resized.
struct Terminal {
    size: Size,
    /// All rows that there ever were, and whether each goes on in the next.
    rows: Vec<(String, bool)>,
    row: usize,
    column: usize,
    /// Whether the last letter stands in the last column.
    full: bool,
}

impl Terminal {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            size: Size { columns, rows },
            rows: vec![(String::new(), false)],
            row: 0,
            column: 0,
            full: false,
        }
    }

    fn write(&mut self, text: &str) {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                '\r' => (self.column, self.full) = (0, false),
                '\n' => {
                    // The line discipline of a terminal makes both of it.
                    (self.column, self.full) = (0, false);
                    self.down();
                }
                '\x1b' => {
                    let end = rest.find(|it: char| it.is_ascii_alphabetic());
                    let (sequence, after) = rest.split_at(end.expect("a sequence has an end") + 1);
                    rest = after;
                    self.control(sequence);
                }
                letter => self.letter(letter),
            }
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push((String::new(), false));
        }
    }

    fn letter(&mut self, letter: char) {
        if self.full {
            self.rows[self.row].1 = true;
            (self.column, self.full) = (0, false);
            self.down();
        }
        let mut row: Vec<char> = self.rows[self.row].0.chars().collect();
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = letter;
        self.rows[self.row].0 = row.into_iter().collect();
        match self.column + 1 == self.size.columns {
            true => self.full = true,
            false => self.column += 1,
        }
    }

    fn control(&mut self, sequence: &str) {
        let keep = self.column;
        match sequence {
            "[K" | "[J" => {
                let (row, goes_on) = &mut self.rows[self.row];
                *row = row.chars().take(keep).collect();
                *goes_on = false;
                if sequence == "[J" {
                    self.rows.truncate(self.row + 1);
                }
            }
            "[?2026h" | "[?2026l" => {}
            style if style.ends_with('m') => {}
            up => {
                let up = up.strip_prefix('[').and_then(|it| it.strip_suffix('A'));
                let up: usize = up.and_then(|it| it.parse().ok()).expect("a known sequence");
                // The first row that can be seen is as far as it goes.
                let first = self.rows.len().saturating_sub(self.size.rows);
                self.row = self.row.saturating_sub(up).max(first);
                self.full = false;
            }
        }
    }

    fn resize(&mut self, columns: usize, rows: usize) {
        let mut lines = vec![String::new()];
        for (row, goes_on) in std::mem::take(&mut self.rows) {
            let line = lines.last_mut().expect("one");
            line.push_str(&row);
            if !goes_on {
                lines.push(String::new());
            }
        }
        lines.pop();
        for line in lines {
            let letters: Vec<char> = line.chars().collect();
            let mut parts: Vec<_> = letters.chunks(columns).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            for (number, part) in parts.iter().enumerate() {
                let goes_on = number + 1 < parts.len();
                self.rows.push((part.iter().collect(), goes_on));
            }
        }
        self.size = Size { columns, rows };
        self.row = self.rows.len() - 1;
    }

    fn shown(&self) -> Vec<&str> {
        self.rows.iter().map(|(row, _)| row.trim_end()).collect()
    }
}

fn lines(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn pictures_take_each_others_place() {
    let mut terminal = Terminal::new(12, 8);
    let mut screen = Screen::default();
    terminal.write("$ sampan top\n");
    for texts in [
        &["service cpu", "web      12"][..],
        // As wide as the terminal, with a style, and fewer.
        &["\x1b[1mservice\x1b[0m  cpu", "web       4m", "api        1"],
        &["service  cpu"],
        &[],
        &["service  cpu", "w"],
    ] {
        let drawn = screen.draw(&lines(texts), terminal.size);
        assert!(!drawn.contains("[2J"), "nothing is erased as a whole");
        terminal.write(&drawn);
        let plain = texts
            .iter()
            .map(|text| text.replace("\x1b[1m", "").replace("\x1b[0m", ""));
        let mut expected = vec!["$ sampan top".to_owned()];
        expected.extend(plain);
        expected.push(String::new());
        assert_eq!(terminal.shown(), expected);
    }
    terminal.write("^C");
    terminal.write(&screen.leave());
    assert_eq!(terminal.shown(), ["$ sampan top", "service  cpu", "w", ""]);
}

#[test]
fn a_letter_is_not_gone_before_another_is_there() {
    let mut screen = Screen::default();
    let size = Size {
        columns: 20,
        rows: 10,
    };
    let table = lines(&["service  cpu", "web       12"]);
    let mut terminal = Terminal::new(20, 10);
    terminal.write(&screen.draw(&table, size));
    let again = screen.draw(&table, size);
    // However far the terminal has come, it shows what it has shown.
    let ends = again.char_indices().map(|(at, _)| at);
    let mut inside = false;
    for end in ends {
        let letter = again[end..].chars().next();
        if !inside {
            let mut partly = Terminal::new(20, 10);
            partly.write(&Screen::default().draw(&table, size));
            partly.write(&again[..end]);
            assert_eq!(
                partly.shown(),
                terminal.shown(),
                "after {:?}",
                &again[..end]
            );
        }
        match letter {
            Some('\x1b') => inside = true,
            Some(it) if inside && it.is_ascii_alphabetic() => inside = false,
            _ => {}
        }
    }
}

#[test]
fn a_terminal_may_be_resized() {
    let wide = lines(&[
        "service  ready  cpu",
        "web          3  12m",
        "api          1   4m",
    ]);
    let narrow = lines(&["service cpu", "web     12m"]);
    let mut terminal = Terminal::new(20, 10);
    let mut screen = Screen::default();
    terminal.write("$ sampan top\n");
    terminal.write(&screen.draw(&wide, terminal.size));
    terminal.resize(12, 10);
    assert_eq!(terminal.rows.len(), 8, "three lines are six rows now");
    terminal.write(&screen.draw(&narrow, terminal.size));
    assert_eq!(
        terminal.shown(),
        ["$ sampan top", "service cpu", "web     12m", ""]
    );
    terminal.resize(40, 10);
    terminal.write(&screen.draw(&wide, terminal.size));
    assert_eq!(terminal.shown()[1..4], wide[..]);
    assert_eq!(terminal.rows.len(), 5);
    // Lower than the table: what has left the screen stays, and the rest is drawn again.
    terminal.resize(40, 3);
    terminal.write(&screen.draw(&lines(&["a", "b"]), terminal.size));
    assert_eq!(terminal.shown().last_chunk(), Some(&["a", "b", ""]));
}

fn section(thing: &'static str, rows: &[&[&str]]) -> Section {
    Section {
        thing,
        lines: Lines {
            head: lines(&[thing]),
            rows: rows.iter().map(|row| lines(row)).collect(),
        },
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let sections = || {
        vec![
            section("service", &[&["web", "  why"], &["api"]]),
            section("pod", &[&["web-1-0"], &["web-1-1"], &["api-1-0"]]),
        ]
    };
    let fitted = |most| fit(sections(), most).join("|");
    let whole = "service|web|  why|api||pod|web-1-0|web-1-1|api-1-0";
    assert_eq!(fitted(9), whole);
    assert_eq!(fitted(usize::MAX), whole);
    assert_eq!(
        fitted(8),
        "service|web|  why|api||pod|web-1-0|… and 2 pods more"
    );
    assert_eq!(fitted(7), "service|web|  why|api|… and 3 pods more");
    assert_eq!(fitted(6), "service|web|  why|api|… and 3 pods more");
    assert_eq!(fitted(4), "service|web|  why|… and 1 service, 3 pods more");
    assert_eq!(fitted(3), "… and 2 services, 3 pods more");
    assert_eq!(fitted(1), "… and 2 services, 3 pods more");
    assert_eq!(fitted(0), "");
}
