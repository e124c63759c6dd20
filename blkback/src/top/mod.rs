//! `blkback top`: what the running daemon's disks carry, second by second, in the terminal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use blkback::ctl::{
    client::Client,
    protocol::{Answer, Command, Disk, DiskStats},
};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

mod rates;
mod view;

use rates::{Order, Row, rows};

/// What the daemon said at one time.
struct Sample {
    at: Instant,
    disks: Vec<Disk>,
    stats: Vec<DiskStats>,
}

/// What the user sees.
#[derive(Default)]
struct Screen {
    rows: Vec<Row>,
    order: Order,
    paused: bool,
    /// The first row shown.
    first: usize,
}

/// Shows and follows until the user has seen enough. Errors: no daemon, or it has gone; no terminal.
pub(crate) fn run(socket: &Path, every: Duration) -> Result<()> {
    let mut client = Client::connect(socket)?;
    let mut before = sample(&mut client)?;
    // Only now, so that what went wrong so far can be read.
    let mut terminal = ratatui::try_init()?;
    let outcome = follow(&mut terminal, &mut client, &mut before, every);
    ratatui::try_restore()?;
    outcome
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    client: &mut Client,
    before: &mut Sample,
    every: Duration,
) -> Result<()> {
    let mut screen = Screen { rows: rows(before, before), ..Screen::default() };
    loop {
        screen.order.sort(&mut screen.rows);
        screen.first = screen.first.min(screen.rows.len().saturating_sub(1));
        terminal.draw(|frame| view::draw(frame, &screen))?;
        let left = every.saturating_sub(before.at.elapsed());
        if event::poll(left)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && !screen.press(key)
            {
                return Ok(());
            }
        } else {
            let now = sample(client)?;
            if !screen.paused {
                screen.rows = rows(before, &now);
            }
            *before = now;
        }
    }
}

impl Screen {
    /// False when the user has seen enough.
    fn press(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            _ => {}
        }
        true
    }
}

fn sample(client: &mut Client) -> Result<Sample> {
    let (Answer::Disks(disks), Answer::Stats(stats)) =
        (client.ask(Command::List)?, client.ask(Command::Stats { disk: None })?)
    else {
        bail!("the daemon answers something else than it was asked");
    };
    Ok(Sample { at: Instant::now(), disks, stats })
}
