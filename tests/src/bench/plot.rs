//! IOPS and latency over queue depth, as one SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{
    job::{Job, Sample},
    table::{Contender, Storage, Table},
};

/// What is drawn of a sample.
type Figure = fn(&Sample) -> f64;

/// Who is drawn, in which colour.
const SERIES: [(Contender, RGBColor); 4] = [
    (Contender::Raw, RGBColor(110, 110, 110)),
    (Contender::Pair, RGBColor(200, 40, 40)),
    (Contender::Qemu, RGBColor(40, 80, 200)),
    (Contender::QemuPolled, RGBColor(120, 170, 230)),
];

/// Draws the 4 KiB random reads of `table` over their depths. Errors: nothing to draw, or the file cannot be written.
pub fn draw(table: &Table, file: &Path) -> Result<()> {
    let root = SVGBackend::new(file, (1100, 480)).into_drawing_area();
    let fail = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    root.fill(&WHITE).map_err(|e| fail(&e))?;
    let (left, right) = root.split_horizontally(550);
    let panels: [(_, &str, SeriesLabelPosition, Figure); 2] = [
        (left, "4 KiB random reads per second", SeriesLabelPosition::LowerRight, |s| s.iops),
        (right, "median latency, microseconds", SeriesLabelPosition::UpperLeft, |s| s.p50_us),
    ];
    for (area, title, legend, get) in panels {
        let lines: Vec<_> =
            SERIES.iter().map(|&(who, colour)| (who, colour, line(table, who, get))).collect();
        let (depths, values) = bounds(lines.iter().flat_map(|(_, _, points)| points))
            .ok_or_else(|| anyhow!("no sweep over depths to draw"))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(14)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(
                (depths.0..depths.1).log_scale().base(2.0),
                (values.0 * 0.8..values.1 * 1.25).log_scale(),
            )
            .map_err(|e| fail(&e))?;
        chart
            .configure_mesh()
            .x_desc("reads in flight")
            .x_label_formatter(&|depth| format!("{depth:.0}"))
            .y_label_formatter(&|value| short(*value))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()
            .map_err(|e| fail(&e))?;
        for (who, colour, points) in lines.into_iter().filter(|(.., points)| !points.is_empty()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|e| fail(&e))?
                .label(who.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart
                .draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))
                .map_err(|e| fail(&e))?;
        }
        chart
            .configure_series_labels()
            .position(legend)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|e| fail(&e))?;
    }
    root.present().map_err(|e| fail(&e))
}

/// The points (depth, figure) of one contender's 4 KiB random reads from the file, by depth.
fn line(table: &Table, who: Contender, get: Figure) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = table
        .rows()
        .filter(|(row, _)| {
            row.who == who && row.storage == Storage::File && row.job == Job::random(4096, row.job.depth)
        })
        .map(|(row, samples)| (f64::from(row.job.depth), get(&super::table::median(samples))))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

type Range = (f64, f64);

fn bounds<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Option<(Range, Range)> {
    points.fold(None, |bounds, &(x, y)| {
        let ((left, right), (low, high)) = bounds.unwrap_or(((x, x), (y, y)));
        Some(((left.min(x), right.max(x)), (low.min(y), high.max(y))))
    })
}

/// A figure for an axis: `250 k`, `1.2 M`.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

#[cfg(test)]
mod tests;
