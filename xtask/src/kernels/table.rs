//! What worked where: a line for each kernel, and below it why something did not.

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// It worked. With it, programs and how many instructions the verifier looked at, where the check tells.
    Yes(Vec<(String, String)>),
    /// It did not, and why.
    No(String),
    /// It needs what the kernel has refused.
    Untried,
}

impl Cell {
    /// Whether it worked.
    pub(super) fn worked(&self) -> bool {
        matches!(self, Self::Yes(_))
    }
}

/// A kernel's line.
#[derive(Debug)]
pub(super) struct Row {
    /// As `uname -r` says it.
    pub(super) kernel: String,
    /// Whether everything has to work on it.
    pub(super) must_work: bool,
    /// The headings and what became of them.
    pub(super) cells: Vec<(&'static str, Cell)>,
}

impl Row {
    /// Whether everything does.
    pub(super) fn all_work(&self) -> bool {
        self.cells.iter().all(|(_, cell)| cell.worked())
    }
}

/// The table, as Markdown has tables, so that documents can have it too; then counts of instructions, then reasons.
pub(super) fn show(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut lines = vec![vec!["kernel".to_owned()]];
    lines[0].extend(first.cells.iter().map(|(column, _)| (*column).to_owned()));
    let (mut counts, mut reasons) = (Vec::new(), Vec::new());
    for row in rows {
        let mut line = vec![row.kernel.clone()];
        for (column, cell) in &row.cells {
            line.push(match cell {
                Cell::Yes(programs) => {
                    if !programs.is_empty() {
                        let each: Vec<String> =
                            programs.iter().map(|(name, count)| format!("{name} {count}")).collect();
                        counts.push(format!("{}: {}", row.kernel, each.join(", ")));
                    }
                    "yes".to_owned()
                }
                Cell::No(why) => {
                    reasons.push(format!("{} {column}: {why}", row.kernel));
                    "no".to_owned()
                }
                Cell::Untried => "-".to_owned(),
            });
        }
        lines.push(line);
    }
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..lines[0].len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            text += &format!("|{}|\n", rules.join("|"));
        }
    }
    for (heading, list) in
        [("Instructions that the verifier looked at:", counts), ("What does not work:", reasons)]
    {
        if !list.is_empty() {
            text += &format!("\n{heading}\n  {}\n", list.join("\n  "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_kernel_and_the_reasons_below() {
        let count = vec![("branchline_relay".to_owned(), "13286".to_owned())];
        let rows = [
            Row {
                kernel: "5.10.0-32-amd64".to_owned(),
                must_work: false,
                cells: vec![("verified", Cell::No("no helper".to_owned())), ("tc", Cell::Untried)],
            },
            Row {
                kernel: "6.1.0-56-amd64".to_owned(),
                must_work: true,
                cells: vec![("verified", Cell::Yes(count)), ("tc", Cell::Yes(vec![]))],
            },
        ];
        assert!(!rows[0].all_work() && rows[1].all_work());
        assert_eq!(
            show(&rows),
            "| kernel          | verified | tc  |\n\
             |-----------------|----------|-----|\n\
             | 5.10.0-32-amd64 | no       | -   |\n\
             | 6.1.0-56-amd64  | yes      | yes |\n\
             \n\
             Instructions that the verifier looked at:\n  \
             6.1.0-56-amd64: branchline_relay 13286\n\
             \n\
             What does not work:\n  \
             5.10.0-32-amd64 verified: no helper\n"
        );
    }
}
