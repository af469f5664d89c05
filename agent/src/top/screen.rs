//! What is on the screen, and what keys change of it. Drawing is a pure function of it.

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Row as TableRow, Table},
};

use super::{
    rates::Rates,
    rows::{self, MEASURES, Sort, View},
};
use crate::status::PodStatus;

const HELP: &str =
    "1 services  2 edges  3 pods  s sort  n namespace  p pause  up/down PgUp/PgDn scroll  q quit";
/// Width of the columns that every view has.
const MEASURE_WIDTHS: [u16; 9] = [7, 7, 6, 8, 8, 8, 8, 9, 9];

/// What is shown.
pub(super) struct Screen {
    pub(super) view: View,
    pub(super) sort: Sort,
    pub(super) namespace: Option<String>,
    /// What is being typed as a namespace.
    typing: Option<String>,
    paused: bool,
    /// Rows above the first that is shown.
    skipped: usize,
    rates: Rates,
    pods: Vec<PodStatus>,
    /// Why there is nothing newer.
    problem: Option<String>,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Quit,
}

impl Screen {
    pub(super) fn new(view: View, sort: Sort, namespace: Option<String>) -> Self {
        Self {
            view,
            sort,
            namespace,
            typing: None,
            paused: false,
            skipped: 0,
            rates: Rates::default(),
            pods: Vec::new(),
            problem: None,
        }
    }

    /// Shows what was read, unless it is paused.
    pub(super) fn update(&mut self, read: Result<(Rates, Vec<PodStatus>), String>) {
        match read {
            Ok(_) if self.paused => {}
            Ok((rates, pods)) => (self.rates, self.pods, self.problem) = (rates, pods, None),
            Err(problem) => self.problem = Some(problem),
        }
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if let Some(typed) = &mut self.typing {
            match key.code {
                KeyCode::Enter => {
                    self.namespace = self.typing.take().filter(|typed| !typed.is_empty());
                    self.skipped = 0;
                }
                KeyCode::Esc => self.typing = None,
                KeyCode::Backspace => drop(typed.pop()),
                // Names of namespaces are no longer than that.
                KeyCode::Char(c) if typed.len() < 63 => typed.push(c),
                _ => {}
            }
            return Next::Draw;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('1') => self.show(View::Services),
            KeyCode::Char('2') => self.show(View::Edges),
            KeyCode::Char('3') => self.show(View::Pods),
            KeyCode::Tab => self.show(match self.view {
                View::Services => View::Edges,
                View::Edges => View::Pods,
                View::Pods => View::Services,
            }),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('n') => self.typing = Some(String::new()),
            KeyCode::Down => self.skipped += 1,
            KeyCode::Up => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::PageDown => self.skipped += 10,
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(10),
            KeyCode::Home => self.skipped = 0,
            _ => {}
        }
        // It does not go on beyond the last row.
        self.skipped = self.skipped.min(self.rows().len().saturating_sub(1));
        Next::Draw
    }

    fn show(&mut self, view: View) {
        (self.view, self.skipped) = (view, 0);
    }

    fn rows(&self) -> Vec<rows::Row> {
        rows::rows(self.view, &self.rates, &self.pods, self.namespace.as_deref(), self.sort)
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let parts = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
        let [title, table, help] = Layout::vertical(parts).areas(frame.area());
        let strong = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Line::from(self.title()).style(strong), title);
        self.draw_table(frame, table);
        let last = match &self.typing {
            Some(typed) => format!("namespace (empty: all): {typed}_"),
            None => HELP.to_owned(),
        };
        frame.render_widget(Line::from(last), help);
    }

    fn title(&self) -> String {
        let mut title = format!(
            "undermesh top  node {}  {}  by {}",
            self.rates.node,
            self.view.title().to_lowercase(),
            self.sort.name()
        );
        if let Some(namespace) = &self.namespace {
            title += &format!("  namespace {namespace}");
        }
        if self.paused {
            title += "  PAUSED";
        }
        if let Some(problem) = &self.problem {
            title += &format!("  NO ANSWER: {problem}");
        }
        title
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = self.view.columns();
        let rows = self.rows();
        let heads = columns.iter().map(|(head, _)| Cell::new(*head));
        let heads = heads.chain(MEASURES.map(|head| Cell::new(right(head))));
        let head = TableRow::new(heads).style(Style::new().add_modifier(Modifier::BOLD));
        // Names get what they need, as far as there is room.
        let needed = |column: usize| {
            let names = rows.iter().filter_map(|row| row.names.get(column));
            let longest = names.map(|name| name.chars().count()).max().unwrap_or_default();
            u16::try_from(longest.max(columns[column].0.len())).unwrap_or(u16::MAX)
        };
        let names = (0..columns.len()).map(|column| Constraint::Max(needed(column)));
        let widths: Vec<Constraint> = names.chain(MEASURE_WIDTHS.map(Constraint::Length)).collect();
        let shown = rows.iter().skip(self.skipped).take(usize::from(area.height));
        let body = shown.map(|row| {
            let names = row.names.iter().map(|name| Cell::new(name.as_str()));
            let cells = rows::cells(&row.measures);
            TableRow::new(names.chain(cells.map(|cell| Cell::new(right(cell)))))
        });
        frame.render_widget(Table::new(body, widths).header(head), area);
    }
}

fn right(text: impl Into<String>) -> Line<'static> {
    Line::from(text.into()).right_aligned()
}

#[cfg(test)]
mod tests;
