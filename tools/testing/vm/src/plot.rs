//! What throws cost, as an SVG of two panels.

use std::iter;
use std::ops::Range;

use anyhow::{Result, ensure};
use plotters::coord::Shift;
use plotters::element::{Drawable, PointCollection};
use plotters::prelude::*;
use plotters_backend::{BackendCoord, DrawingErrorKind};

use crate::bench::Row;

const SIZE: (u32, u32) = (860, 380);
const FONT: &str = "sans-serif";
/// Of a mark, in pixels.
const RADIUS: i32 = 4;

/// Rows of throws, by how many calls below the main program.
const DEEP: [&str; 8] = [
    "throw in the main program",
    "throw one deep",
    "throw two deep",
    "throw three deep",
    "throw four deep",
    "throw five deep",
    "throw six deep",
    "throw seven deep",
];

/// What tells a series from the others without colour, too.
#[derive(Clone, Copy)]
enum Mark {
    Circle,
    Square,
    Triangle,
    Cross,
}

impl Mark {
    fn color(self) -> RGBColor {
        match self {
            Self::Circle => RGBColor(0, 90, 160),
            Self::Square => BLACK,
            Self::Triangle => RGBColor(0, 120, 80),
            Self::Cross => RGBColor(190, 80, 0),
        }
    }
}

/// A mark, and where its middle is.
struct At<C>(C, Mark);

impl<'a, C: 'a> PointCollection<'a, C> for &'a At<C> {
    type Point = &'a C;
    type IntoIter = iter::Once<&'a C>;

    fn point_iter(self) -> Self::IntoIter {
        iter::once(&self.0)
    }
}

impl<C, DB: DrawingBackend> Drawable<DB> for At<C> {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        points: I,
        backend: &mut DB,
        _: (u32, u32),
    ) -> Result<(), DrawingErrorKind<DB::ErrorType>> {
        let Self(_, mark) = self;
        let style = mark.color().stroke_width(2);
        for (x, y) in points {
            let corner = |right, down| (x + right * RADIUS, y + down * RADIUS);
            let [above_left, above_right] = [corner(-1, -1), corner(1, -1)];
            let [below_left, below_right] = [corner(-1, 1), corner(1, 1)];
            match mark {
                Mark::Circle => backend.draw_circle((x, y), RADIUS.unsigned_abs(), &style, true)?,
                Mark::Triangle => {
                    backend.fill_polygon([corner(0, -1), below_left, below_right], &style)?;
                }
                Mark::Cross => {
                    backend.draw_line(above_left, below_right, &style)?;
                    backend.draw_line(below_left, above_right, &style)?;
                }
                Mark::Square => {
                    backend.draw_rect(above_left, below_right, &WHITE, true)?;
                    backend.draw_rect(above_left, below_right, &style, false)?;
                }
            }
        }
        Ok(())
    }
}

struct Series {
    name: &'static str,
    mark: Mark,
    points: Vec<(u64, u64)>,
}

impl Series {
    fn new(name: &'static str, mark: Mark, points: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut points: Vec<_> = points.collect();
        points.sort_unstable();
        Self { name, mark, points }
    }
}

struct Panel {
    across: &'static str,
    /// From the highest line to the lowest, as the legend names them.
    series: Vec<Series>,
}

impl Panel {
    fn new(across: &'static str, series: Vec<Series>) -> Result<Self> {
        for Series { name, points, .. } in &series {
            let count = points.len();
            ensure!(
                count >= 2,
                "cannot plot '{name}' by {across}: it takes 2 rows or more, of which {count} are there"
            );
        }
        Ok(Self { across, series })
    }

    /// Throws with nothing held, on both kernels.
    fn depth(rows: &[Row]) -> Result<Self> {
        let points = |count: fn(&Row) -> Option<u64>| {
            (0..).zip(DEEP).filter_map(move |(deep, name)| {
                let row = rows.iter().find(|row| row.row == name)?;
                Some((deep, count(row)?))
            })
        };
        let series = vec![
            Series::new("unpatched", Mark::Square, points(|row| row.unpatched)),
            Series::new("patched", Mark::Circle, points(|row| row.patched)),
        ];
        Self::new("calls below the main program", series)
    }

    /// Ends of a program that holds references, on the patched kernel.
    fn held(rows: &[Row]) -> Result<Self> {
        let series = |what, mark| {
            let points = rows.iter().filter_map(|row| {
                let row_of = row.row.strip_prefix("references held, ")?;
                let (held, row_what) = row_of.split_once(": ")?;
                let held = held.parse().ok()?;
                Some((held, row.patched?)).filter(|_| row_what == what)
            });
            Series::new(what, mark, points)
        };
        let series = vec![
            series("throw", Mark::Circle),
            series("released by hand, throw possible", Mark::Cross),
            series("released by hand", Mark::Triangle),
        ];
        Self::new("references held", series)
    }

    /// From 0 to a tick behind the last point, across and up.
    fn ranges(&self) -> (Range<u64>, Range<u64>) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let right = points().map(|&(across, _)| across).max();
        let top = points().map(|&(_, up)| up).max().unwrap_or_default();
        let step = 10_u64.pow(top.max(1).ilog10());
        (0..right.unwrap_or_default(), 0..top.next_multiple_of(step))
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
        let (across, up) = self.ranges();
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .x_labels(9)
            .y_labels(9)
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 17))
            .x_desc(self.across)
            .y_desc("instructions per run")
            .draw()?;
        for Series { name, mark, points } in &self.series {
            let (mark, style) = (*mark, mark.color().stroke_width(2));
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            chart
                .draw_series(points.iter().map(|&point| At(point, mark)))?
                .label(*name)
                .legend(move |(x, y)| At((x + 10, y), mark));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.filled())
            .label_font((FONT, 16))
            .draw()?;
        Ok(())
    }
}

/// Plots the rows that are there; a series needs two.
pub fn svg(rows: &[Row]) -> Result<String> {
    let panels = [Panel::depth(rows)?, Panel::held(rows)?];
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- SPDX-License-Identifier: GPL-2.0 -->\n",
    );
    let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly((1, panels.len()))) {
        panel.draw(&area)?;
    }
    root.present()?;
    drop(root);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, unpatched: Option<u64>, patched: Option<u64>) -> Row {
        Row {
            row: name.to_owned(),
            runs: Some(10),
            unpatched,
            patched,
        }
    }

    /// Of all that a plot shows, in an order of its own.
    fn rows() -> Vec<Row> {
        let mut rows = vec![
            row("throw seven deep", Some(6790), Some(867)),
            row("empty", Some(99), Some(99)),
            row("throw in the main program", Some(1740), Some(296)),
            row("throw three deep", None, Some(512)),
        ];
        for held in [16, 2] {
            for (what, each) in [
                ("released by hand", 41),
                ("released by hand, throw possible", 44),
                ("throw", 85),
            ] {
                let name = format!("references held, {held}: {what}");
                rows.push(row(&name, None, Some(110 + held * each)));
            }
        }
        rows
    }

    fn points(panel: &Panel) -> Vec<(&str, &[(u64, u64)])> {
        let series = panel.series.iter();
        series.map(|it| (it.name, it.points.as_slice())).collect()
    }

    #[test]
    fn series_have_the_points_of_their_rows() {
        let rows = rows();
        assert_eq!(
            points(&Panel::depth(&rows).unwrap()),
            [
                ("unpatched", &[(0, 1740), (7, 6790)][..]),
                ("patched", &[(0, 296), (3, 512), (7, 867)]),
            ]
        );
        assert_eq!(
            points(&Panel::held(&rows).unwrap()),
            [
                ("throw", &[(2, 280), (16, 1470)][..]),
                ("released by hand, throw possible", &[(2, 198), (16, 814)]),
                ("released by hand", &[(2, 192), (16, 766)]),
            ]
        );
    }

    #[test]
    fn all_points_lie_within_the_axes() {
        let rows = rows();
        assert_eq!(Panel::depth(&rows).unwrap().ranges(), (0..7, 0..7000));
        assert_eq!(Panel::held(&rows).unwrap().ranges(), (0..16, 0..2000));
    }

    #[test]
    fn a_series_without_rows_is_named() {
        let without = |name: &str| {
            let mut rows = rows();
            rows.retain(|row| row.row != name);
            svg(&rows).unwrap_err().to_string()
        };
        assert_eq!(
            without("throw in the main program"),
            "cannot plot 'unpatched' by calls below the main program: \
             it takes 2 rows or more, of which 1 are there"
        );
        assert!(without("references held, 2: throw").contains("'throw' by references held"));
        assert!(svg(&[]).unwrap_err().to_string().contains("0 are there"));
    }

    #[test]
    fn a_plot_is_small_and_has_its_words_as_text() {
        let text = svg(&rows()).unwrap();
        assert!(text.starts_with("<?xml ") && text.ends_with("</svg>\n"));
        assert!(text.len() < 20_000, "{} bytes", text.len());
        for words in [
            "calls below the main program",
            "references held",
            "instructions per run",
            "unpatched",
            "patched",
            "released by hand",
            "released by hand, throw possible",
            "throw",
        ] {
            assert!(text.lines().any(|line| line == words), "no '{words}'");
        }
        // One a point and one in the legend, of either panel.
        assert_eq!(text.matches("<circle").count(), 3 + 1 + 2 + 1);
        assert_eq!(text.matches("<polygon").count(), 2 + 1);
    }
}
