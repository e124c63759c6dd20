//! The picture: totals, a table of disks, and what keys do. Made for 80 columns, and for more.

use indicatif::{BinaryBytes, HumanCount};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout},
    style::{Modifier, Style},
    text::Text,
    widgets::{Paragraph, Row as Line, Table},
};

use super::{Screen, rates::Row};

const COLUMNS: [(&str, Constraint); 8] = [
    ("DISK", Constraint::Length(9)),
    ("STATE", Constraint::Length(9)),
    ("OPS/S", Constraint::Length(9)),
    ("READ/S", Constraint::Length(10)),
    ("WRITE/S", Constraint::Length(10)),
    ("DEPTH", Constraint::Length(5)),
    ("ERR/S", Constraint::Length(5)),
    ("IMAGE", Constraint::Min(12)),
];

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    let sum = |of: fn(&Row) -> f64| screen.rows.iter().map(of).sum::<f64>();
    let totals = format!(
        "blkback: {} disks, {} operations/s, {}/s read, {}/s written{}",
        screen.rows.len(),
        count(sum(|row| row.operations)),
        bytes(sum(|row| row.read)),
        bytes(sum(|row| row.written)),
        if screen.paused { ", paused" } else { "" },
    );
    frame.render_widget(Paragraph::new(totals), top);
    let bold = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let head = COLUMNS.iter().enumerate().map(|(index, (name, _))| aligned((*name).to_owned(), index));
    let lines = screen.rows.iter().skip(screen.first).map(|row| {
        let cells = [
            row.name.clone(),
            row.state.clone(),
            count(row.operations),
            bytes(row.read),
            bytes(row.written),
            row.in_flight.to_string(),
            count(row.failures),
            tail(&row.image, middle.width.saturating_sub(64).into()),
        ];
        Line::new(cells.into_iter().enumerate().map(|(index, cell)| aligned(cell, index)))
    });
    let table = Table::new(lines, COLUMNS.map(|(_, width)| width)).header(Line::new(head).style(bold));
    frame.render_widget(table, middle);
    let keys = format!("q quit   s sort (by {})   p pause   up, down scroll", screen.order.name());
    frame.render_widget(Paragraph::new(keys), bottom);
}

/// Numbers stand to the right.
fn aligned(text: String, column: usize) -> Text<'static> {
    let side = if (2..=6).contains(&column) { Alignment::Right } else { Alignment::Left };
    Text::from(text).alignment(side)
}

/// The end of a name says more than its beginning.
fn tail(text: &str, width: usize) -> String {
    let surplus = text.chars().count().saturating_sub(width.max(12));
    if surplus == 0 {
        text.to_owned()
    } else {
        format!("…{}", text.chars().skip(surplus + 1).collect::<String>())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are neither large nor negative"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn count(rate: f64) -> String {
    HumanCount(whole(rate)).to_string()
}

fn bytes(rate: f64) -> String {
    BinaryBytes(whole(rate)).to_string()
}
