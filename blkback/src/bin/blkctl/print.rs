//! Answers, for people.

use std::fmt::Write as _;

use blkback::{
    ctl::protocol::{Answer, Disk, DiskStats},
    limit::Rates,
};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::BinaryBytes;

/// The answer as text, its last line ended.
pub(crate) fn text(answer: &Answer) -> String {
    match answer {
        Answer::Disks(disks) => list(disks),
        Answer::Disk(disk) => show(disk),
        Answer::Stats(disks) => stats(disks),
        Answer::Limits(rates) => limits(rates),
        Answer::Trace(trace) => format!("{} requests\n", requests(trace)),
        Answer::Done(disk) => format!("{disk}: done\n"),
    }
}

fn requests(trace: &serde_json::Value) -> usize {
    let events = trace["traceEvents"].as_array().map_or(&[][..], Vec::as_slice);
    events.iter().filter(|event| event["cat"] == "request").count()
}

fn named(domain: u16, device: u32, name: Option<&String>) -> String {
    format!("{domain}/{}", name.cloned().unwrap_or_else(|| device.to_string()))
}

fn list(disks: &[Disk]) -> String {
    let mut table = table(&["DISK", "STATE", "SIZE", "QUEUES", "IMAGE"]);
    for disk in disks {
        let state = if disk.drained { format!("{}, drained", disk.state) } else { disk.state.clone() };
        table.add_row([
            named(disk.domain, disk.device, disk.name.as_ref()),
            state,
            BinaryBytes(disk.bytes).to_string(),
            disk.connection.as_ref().map_or_else(String::new, |terms| terms.queues.to_string()),
            disk.image.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    finished(&mut table, &[2, 3])
}

fn show(disk: &Disk) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| _ = writeln!(text, "{key:<12} {value}");
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    line(
        "disk",
        format!("{} ({}/{})", named(disk.domain, disk.device, disk.name.as_ref()), disk.kind, disk.device),
    );
    line("state", disk.state.clone());
    line("image", disk.image.clone().unwrap_or_else(|| "-".into()));
    line("size", format!("{} ({} bytes)", BinaryBytes(disk.bytes), disk.bytes));
    line("read-only", yes(disk.read_only));
    line("removable", yes(disk.removable));
    line("drained", yes(disk.drained));
    if let Some(error) = &disk.error {
        line("error", error.clone());
    }
    if let Some(terms) = &disk.connection {
        line("abi", terms.abi.clone());
        line("queues", format!("{}, of {} ring pages each", terms.queues, terms.ring_pages));
        line("requests", format!("up to {} segments, {}", terms.segments, terms.mode));
        line(
            "data",
            format!("{}{}", terms.strategy, if terms.persistent { ", persistent grants" } else { "" }),
        );
    }
    text
}

fn stats(disks: &[DiskStats]) -> String {
    let mut table = table(&["DISK", "QUEUE", "COUNTER", "VALUE"]);
    for disk in disks {
        for (number, queue) in disk.queues.iter().enumerate() {
            for (name, value) in queue {
                table.add_row([
                    named(disk.domain, disk.device, disk.name.as_ref()),
                    number.to_string(),
                    name.clone(),
                    value.to_string(),
                ]);
            }
        }
    }
    finished(&mut table, &[1, 3])
}

fn limits(rates: &Rates) -> String {
    let mut text = String::new();
    let mut line =
        |key: &str, value: Option<String>| _ = value.map(|value| writeln!(text, "{key:<12} {value}"));
    let number = |rate: Option<u64>| rate.map(|rate| format!("{rate} /s"));
    let size = |rate: Option<u64>| rate.map(|rate| format!("{}/s", BinaryBytes(rate)));
    line("iops", number(rates.iops));
    line("read-iops", number(rates.read_iops));
    line("write-iops", number(rates.write_iops));
    line("bytes", size(rates.bytes));
    line("read-bytes", size(rates.read_bytes));
    line("write-bytes", size(rates.write_bytes));
    line("burst", rates.burst_ms.map(|ms| format!("{ms} ms")));
    if text.is_empty() { "no limits\n".into() } else { text }
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.to_vec());
    table
}

/// As text, with these columns to the right.
fn finished(table: &mut Table, right: &[usize]) -> String {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    lines.concat()
}
