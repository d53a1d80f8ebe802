// SPDX-License-Identifier: GPL-2.0
//! Lines up rows in columns.

/// To which side a column is lined up.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Left,
    Right,
}

/// Returns a line for the titles and one for each row: columns as wide as they need to be, two spaces
/// apart.
pub fn lines<const N: usize>(titles: [(&str, Side); N], rows: &[[String; N]]) -> Vec<String> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].as_str());
        let cells = cells.chain([titles[column].0]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let line = |cells: [&str; N]| {
        let cells: Vec<_> = (0..N)
            .map(|column| {
                let (cell, width) = (cells[column], widths[column]);
                match titles[column].1 {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let rows = rows
        .iter()
        .map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    [line(titles.map(|(title, _)| title))]
        .into_iter()
        .chain(rows)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: [(&str, Side); 3] = [
        ("ID", Side::Right),
        ("NAME", Side::Left),
        ("HELD", Side::Left),
    ];

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows = [
            ["7", "spin", "lock"],
            ["1234", "a", ""],
            ["12", "größer", "x"],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            lines(TITLES, &rows),
            [
                "  ID  NAME    HELD",
                "   7  spin    lock",
                "1234  a",
                "  12  größer  x",
            ]
        );
    }

    #[test]
    fn no_rows() {
        assert_eq!(lines(TITLES, &[]), ["ID  NAME  HELD"]);
    }
}
