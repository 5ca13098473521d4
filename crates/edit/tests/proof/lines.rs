//! The lines in which two texts differ.

/// Lines that went and lines that came, with their numbers counted from 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lines<'a> {
    pub(crate) gone: Vec<(usize, &'a str)>,
    pub(crate) come: Vec<(usize, &'a str)>,
}

/// The shortest difference. Line ends are not part of a line: [`same_line_ends`] checks them.
pub(crate) fn difference<'a>(before: &'a str, after: &'a str) -> Lines<'a> {
    let (a, b) = (split(before), split(after));
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a[head..]
        .iter()
        .rev()
        .zip(b[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (x, y) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    // What both have in common at most, from each pair of places on.
    let mut common = vec![vec![0_u32; y.len() + 1]; x.len() + 1];
    for i in (0..x.len()).rev() {
        for j in (0..y.len()).rev() {
            common[i][j] = if x[i] == y[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let mut lines = Lines {
        gone: Vec::new(),
        come: Vec::new(),
    };
    let (mut i, mut j) = (0, 0);
    while i < x.len() || j < y.len() {
        if i < x.len() && j < y.len() && x[i] == y[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == y.len() || (i < x.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.gone.push((head + i, x[i]));
            i += 1;
        } else {
            lines.come.push((head + j, y[j]));
            j += 1;
        }
    }
    lines
}

pub(crate) fn split(text: &str) -> Vec<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect()
}

/// All lines end as they did: a file of CRLF stays one, the last line has a line break or none as before, and the byte
/// order mark stays.
pub(crate) fn same_line_ends(before: &str, after: &str) -> bool {
    let ends = |text: &str| {
        let (all, crlf) = (text.matches('\n').count(), text.matches("\r\n").count());
        (crlf > 0, all > crlf)
    };
    let single = |text: &str| !text.contains('\n');
    (ends(before) == ends(after) || single(before) || single(after))
        && before.ends_with('\n') == after.ends_with('\n')
        && before.starts_with('\u{feff}') == after.starts_with('\u{feff}')
}
