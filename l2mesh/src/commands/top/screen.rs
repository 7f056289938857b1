//! What stands where. No terminal and no tables here: a state, keys that change it, and a frame that shows it.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    layout::{PARTS, heights},
    rows::{self, Texts},
    sample::Sample,
};
use crate::agent::chronicle::Happened;

/// Events kept for the screen.
const EVENTS: usize = 512;

/// Columns of the matrix that a key moves.
const COLUMNS: usize = 10;

/// How things are made to stand out: by letters and weight alone where colours are not wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) has_colours: bool,
}

/// What a text says, for its looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    Plain,
    /// As it should be, and in use.
    Good,
    /// Works, but not as it should.
    Doubtful,
    Bad,
    /// Not in use, or old.
    Faint,
    Title,
    /// The part that has the keys.
    Chosen,
}

impl Theme {
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::default();
        let (colour, modifier) = match tone {
            Tone::Plain => return style,
            Tone::Good => (Color::Green, Modifier::BOLD),
            Tone::Doubtful => (Color::Yellow, Modifier::BOLD),
            Tone::Bad => (Color::Red, Modifier::BOLD),
            Tone::Faint => (Color::DarkGray, Modifier::empty()),
            Tone::Title => (Color::Cyan, Modifier::BOLD),
            Tone::Chosen => (Color::Cyan, Modifier::REVERSED.union(Modifier::BOLD)),
        };
        let style = style.add_modifier(modifier);
        if self.has_colours { style.fg(colour) } else { style }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    On,
    End,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) sample: Sample,
    pub(super) events: VecDeque<Happened>,
    pub(super) from_agent: bool,
    pub(super) theme: Theme,
    pub(super) is_paused: bool,
    /// Who reaches whom, in the place of this host's paths.
    is_matrix: bool,
    /// The first column of that.
    column: usize,
    /// Why there is nothing new, if there is not.
    pub(super) trouble: Option<String>,
    /// The part that has the keys.
    focus: usize,
    /// First row of each part.
    first: [usize; PARTS],
    /// Rows of each part that are seen.
    seen: [usize; PARTS],
}

impl Screen {
    pub(super) fn new(theme: Theme) -> Self {
        Self {
            sample: Sample::default(),
            events: VecDeque::new(),
            from_agent: false,
            theme,
            is_paused: false,
            is_matrix: false,
            column: 0,
            trouble: None,
            focus: 0,
            first: [0; PARTS],
            seen: [1; PARTS],
        }
    }

    /// One event more.
    pub(super) fn happened(&mut self, event: Happened) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        let page = self.seen[self.focus].max(1);
        let first = self.first[self.focus];
        let place = match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Next::End,
            KeyCode::Char('q') | KeyCode::Esc => return Next::End,
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return Next::On;
            }
            KeyCode::Char('m') => {
                (self.is_matrix, self.focus) = (!self.is_matrix, 0);
                return Next::On;
            }
            KeyCode::Char('<' | ',') => return self.columns(self.column.saturating_sub(COLUMNS)),
            KeyCode::Char('>' | '.') => return self.columns(self.column + COLUMNS),
            KeyCode::Tab | KeyCode::Right => return self.choose((self.focus + 1) % PARTS),
            KeyCode::BackTab | KeyCode::Left => return self.choose((self.focus + PARTS - 1) % PARTS),
            KeyCode::Char(digit @ '1'..='4') => return self.choose(digit as usize - '1' as usize),
            KeyCode::Up | KeyCode::Char('k') => first.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => first + 1,
            KeyCode::PageUp => first.saturating_sub(page),
            KeyCode::PageDown => first + page,
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => first,
        };
        self.first[self.focus] = place;
        Next::On
    }

    fn columns(&mut self, first: usize) -> Next {
        self.column = first;
        Next::On
    }

    fn choose(&mut self, part: usize) -> Next {
        self.focus = part;
        Next::On
    }

    /// Shows it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let texts = [
            if self.is_matrix {
                rows::matrix(&self.sample, width, &mut self.column)
            } else {
                rows::peers(&self.sample, width)
            },
            rows::networks(&self.sample, width),
            rows::macs(&self.sample, width),
            rows::events(&self.events, self.from_agent),
        ];
        let wants = texts.each_ref().map(|texts| 1 + usize::from(texts.header.is_some()) + texts.rows.len().max(1));
        let heights = heights(height, wants, self.focus);
        let mut lines = vec![self.headline()];
        for (part, (texts, part_height)) in texts.iter().zip(heights).enumerate() {
            if part_height > 0 {
                self.part(part, texts, part_height, &mut lines);
            }
        }
        lines.resize(height.saturating_sub(1).max(1), Line::default());
        if height > 1 {
            lines.push(self.line(&[(rows::KEYS, Tone::Faint)]));
        }
        for (row, line) in (0..area.height).zip(lines) {
            frame.render_widget(line, Rect { y: area.y + row, height: 1, ..area });
        }
    }

    fn headline(&self) -> Line<'static> {
        let Sample { node, interface, mode, agent, total, .. } = &self.sample;
        let what = format!("l2mesh top  {node} on {interface}, mode {mode}  ");
        let pause = if self.is_paused { "  PAUSED" } else { "" };
        if let Some(trouble) = &self.trouble {
            // In the place of what is not known any more.
            return self.line(&[(&what, Tone::Title), (trouble, Tone::Bad), (pause, Tone::Doubtful)]);
        }
        let agent = match agent {
            Some(pid) => (format!("agent {pid}"), Tone::Plain),
            None => ("no agent, paths frozen".to_owned(), Tone::Doubtful),
        };
        let [out, _, into, _] = total.texts();
        let rates = format!("  out {out}/s in {into}/s");
        self.line(&[(&what, Tone::Title), (&agent.0, agent.1), (&rates, Tone::Plain), (pause, Tone::Doubtful)])
    }

    fn part(&mut self, part: usize, texts: &Texts, height: usize, lines: &mut Vec<Line<'static>>) {
        let tone = if part == self.focus { Tone::Chosen } else { Tone::Title };
        let above = 1 + usize::from(texts.header.is_some());
        let room = height.saturating_sub(above);
        let number = texts.rows.len();
        let first = self.first[part].min(number.saturating_sub(room));
        // The newest events are at the end: that is where it stays unless somebody moves.
        self.seen[part] = room;
        self.first[part] = first;
        let shown = number.min(first + room);
        let more =
            if number > room && room > 0 { format!("  {}-{shown} of {number}", first + 1) } else { String::new() };
        lines.push(self.line(&[(&format!("{} {}", part + 1, texts.title), tone), (&more, Tone::Faint)]));
        if let Some(header) = &texts.header
            && height > 1
        {
            lines.push(self.line(&[(header, Tone::Faint)]));
        }
        for row in &texts.rows[first..shown] {
            let parts: Vec<(&str, Tone)> = row.iter().map(|(text, tone)| (&**text, *tone)).collect();
            lines.push(self.line(&parts));
        }
        let drawn = above.min(height) + shown - first;
        if number == 0 && drawn < height {
            lines.push(self.line(&[("  (none)", Tone::Faint)]));
        }
        let missing = height.saturating_sub(drawn + usize::from(number == 0 && drawn < height));
        lines.extend((0..missing).map(|_| Line::default()));
    }

    fn line(&self, parts: &[(&str, Tone)]) -> Line<'static> {
        parts.iter().map(|(text, tone)| Span::styled((*text).to_owned(), self.theme.style(*tone))).collect()
    }
}

#[cfg(test)]
mod tests;
