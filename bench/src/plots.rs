//! The plots: SVG from the raw data.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::appliance::Way;
use crate::contender::Contender;
use crate::record::Record;
use crate::report::{self, Spread};
use crate::streams;

const SIZE: (u32, u32) = (900, 420);
const FONT: (&str, u32) = ("sans-serif", 15);
/// Height of a bar with its room, and of what stands around all of them.
const ROW: u32 = 30;
const AROUND_ROWS: u32 = 100;
/// Room beside the longest bar for its figure, and between a bar and its figure, as parts of the longest.
const HEADROOM: f64 = 1.12;
const BESIDE: f64 = 0.01;
const TITLE: (&str, u32) = ("sans-serif", 20);

/// Bars, one for each contender, with what the rounds spread over.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn bars(figure: impl Fn(Contender) -> Option<Spread>, title: &str, path: &Path) -> Result<()> {
    let bars: Vec<(&str, Spread)> =
        Contender::ALL.into_iter().filter_map(|it| Some((it.name(), figure(it)?))).collect();
    draw_bars(&bars, title, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_bars(bars: &[(&str, Spread)], title: &str, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let most = bars.iter().map(|(_, it)| it.max).fold(0.0, f64::max);
    if bars.is_empty() {
        return Err("nothing was measured".into());
    }
    let count = bars.len() as i32;
    let height = ROW * bars.len() as u32 + AROUND_ROWS;
    let root = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, TITLE)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(140)
        .build_cartesian_2d(0.0..most * HEADROOM, (0..count - 1).into_segmented())?;
    // The first stands at the top.
    let from_top = |row: i32| usize::try_from(count - 1 - row).ok().and_then(|index| bars.get(index));
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&|at| match at {
            SegmentValue::CenterOf(row) => from_top(*row).map_or("", |bar| bar.0).to_owned(),
            _ => String::new(),
        })
        .x_label_formatter(&|value| thousands(*value))
        .label_style(FONT)
        .draw()?;
    for row in 0..count {
        let Some((name, spread)) = from_top(row) else { continue };
        let color = if *name == "floor" { RGBColor(140, 140, 140) } else { RGBColor(38, 110, 170) };
        let mut bar = Rectangle::new(
            [(0.0, SegmentValue::Exact(row)), (spread.median, SegmentValue::Exact(row + 1))],
            color.filled(),
        );
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series([bar])?;
        chart.draw_series([PathElement::new(
            [(spread.min, SegmentValue::CenterOf(row)), (spread.max, SegmentValue::CenterOf(row))],
            BLACK.stroke_width(2),
        )])?;
        let style = FONT.into_text_style(&root).pos(Pos::new(HPos::Left, VPos::Center));
        let at = (spread.max + most * BESIDE, SegmentValue::CenterOf(row));
        chart.draw_series([Text::new(thousands(spread.median), at, style)])?;
    }
    root.present()?;
    Ok(())
}

/// The cost of a packet by the number of streams.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn streams(record: &Record, path: &Path) -> Result<()> {
    draw_streams(record, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_streams(record: &Record, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let lines =
        [(Contender::FLOOR, RGBColor(140, 140, 140)), (Contender::Ours(Way::Native), RGBColor(38, 110, 170))];
    let of = |contender| {
        let points = streams::COUNTS.into_iter().filter_map(|count| {
            let spread = Spread::of(report::by_round(record, contender, count).into_values().collect())?;
            Some((count as f64, spread.median))
        });
        points.collect::<Vec<(f64, f64)>>()
    };
    let most = lines.iter().flat_map(|(it, _)| of(*it)).map(|(_, cost)| cost).fold(0.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("CPU per packet by streams that take turns", TITLE)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d((1.0..200_000.0).log_scale(), 0.0..most * 1.2)?;
    chart
        .configure_mesh()
        .x_desc("streams")
        .y_desc("ns per packet")
        .x_label_formatter(&|value| thousands(*value))
        .y_label_formatter(&|value| thousands(*value))
        .label_style(FONT)
        .draw()?;
    for (contender, color) in lines {
        let points = of(contender);
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(3)))?
            .label(contender.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 5, color.filled())))?;
    }
    chart
        .configure_series_labels()
        // Where no line is: costs begin far above nothing.
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .label_font(FONT)
        .draw()?;
    root.present()?;
    Ok(())
}

/// A number with commas between thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{draw_bars, thousands};
    use crate::contender::Contender;
    use crate::report::Spread;

    #[test]
    fn each_bar_has_its_name_and_its_figure_and_the_first_is_at_the_top() {
        let bars: Vec<(&str, Spread)> = (1u32..)
            .zip(Contender::ALL)
            .map(|(rank, it)| {
                // No number that is on the axis.
                let median = 100_007.0 * f64::from(rank);
                (it.name(), Spread { median, min: median * 0.9, max: median * 1.2 })
            })
            .collect();
        let path = std::env::temp_dir().join(format!("bars-{}.svg", std::process::id()));
        draw_bars(&bars, "Packets a second", &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let height = |text: &str| {
            let (before, _) = svg.split_once(&format!(">\n{text}\n<")).unwrap_or_else(|| panic!("no {text}"));
            let (_, place) = before.rsplit_once(" y=\"").unwrap();
            place.split('"').next().unwrap().parse::<i32>().unwrap()
        };
        let mut above = 0;
        for (name, spread) in &bars {
            let (label, figure) = (height(name), height(&thousands(spread.median)));
            assert!(label > above && (label - figure).abs() < 8, "{name}: {label}, {figure}");
            above = label;
        }
    }

    #[test]
    fn thousands_have_commas() {
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1_234_567.4, "1,234,567")] {
            assert_eq!(thousands(value), text);
        }
    }
}
