//! The contract of all APIs: what every RPC answers to the mistakes that all callers can make. The answers are in
//! `answers.txt`, one line for each RPC and case.
//!
//! A new RPC needs a row in `rows.rs`; its cases follow from its request's fields. If `answers.txt` differs, a new one
//! is written next to the test's program, to be copied here if the difference is intended.
#![allow(clippy::unwrap_used)] // helpers of tests

mod answer;
mod call;
mod cases;
mod contract;
mod lists;
mod rows;
mod scene;
mod twice;
mod watches;

use std::{collections::BTreeSet, fmt::Write, path::Path};

use futures::{StreamExt, stream};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::{
    answer::{Answer, answer},
    call::{Api, method, methods, name},
    cases::{Case, as_it_should_be, cases, fields, not_applicable},
    contract::wanted,
    rows::{Row, rows},
    scene::scene,
};

/// Calls at once.
const AT_ONCE: usize = 16;

const HEADER: &str = "\
# What every RPC answers to whom and to what: the code, the pinned reason, and the field or id that it names. Where a case
# stands for several values that answer differently, all answers are given. Each is what the contract wants (see contract.rs).
# Written by tests/tests/contract/main.rs.
";

/// One cell of the table.
struct Cell {
    case: Case,
    answers: BTreeSet<Answer>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_as_the_table_says() {
    let (scene, api) = scene().await;
    let rows: Vec<Row> = rows()
        .into_iter()
        .map(|row| Row {
            request: scene.filled(&row.request),
            ..row
        })
        .collect();
    let refused = rows.iter().enumerate().flat_map(|(index, row)| {
        let cases = cases(&method(row.method), row, &row.request);
        cases.into_iter().map(move |case| (index, case))
    });
    let mut cells: Vec<Vec<Cell>> = rows.iter().map(|_| Vec::new()).collect();
    // In the order in which they were started.
    let answered: Vec<(usize, Cell)> = stream::iter(refused)
        .map(|(index, case)| asked(&api, &rows, index, case))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (index, cell) in answered {
        cells[index].push(cell);
    }
    // These change things, so one after the other.
    for (index, row) in rows.iter().enumerate() {
        let (_, cell) = asked(&api, &rows, index, as_it_should_be(&row.request)).await;
        cells[index].insert(0, cell);
    }

    let mut departures = Vec::new();
    let mut table = HEADER.to_owned();
    for (row, cells) in rows.iter().zip(&cells) {
        let form = if row.form.is_empty() {
            String::new()
        } else {
            format!(", {}", row.form)
        };
        let _ = writeln!(table, "\n{}{form}", row.method);
        for cell in cells {
            let answers: Vec<String> = cell.answers.iter().map(ToString::to_string).collect();
            let line = format!("  {:<44} {}", cell.case.what.to_string(), answers.join(" / "));
            let wanted = wanted(&method(row.method), row, &cell.case.what);
            if !cell.answers.iter().all(|answer| wanted.is(answer)) {
                departures.push(format!("{}{form}: {}, not {wanted}", row.method, line.trim()));
            }
            let _ = writeln!(table, "{line}");
        }
        let _ = writeln!(
            table,
            "  no field for: {}",
            not_applicable(&method(row.method)).join(", ")
        );
    }
    assert!(
        departures.is_empty(),
        "answers depart from the contract:\n{}",
        departures.join("\n")
    );
    compare(&table);
}

async fn asked(api: &Api, rows: &[Row], index: usize, case: Case) -> (usize, Cell) {
    let method = method(rows[index].method);
    let answers = answer(api, &method, &case).await;
    (index, Cell { case, answers })
}

/// Compares the table with the pinned one.
fn compare(table: &str) {
    let pinned = include_str!("answers.txt");
    if table == pinned {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("answers.txt");
    std::fs::write(&path, table).unwrap();
    let difference = similar::TextDiff::from_lines(pinned, table);
    let difference = difference.unified_diff().context_radius(30).to_string();
    panic!(
        "answers differ from tests/tests/contract/answers.txt; where that is meant, copy {} there\n{difference}",
        path.display()
    );
}

/// Every RPC has a row, and every field of its request is in one.
#[test]
fn no_rpc_and_no_field_is_left_out() {
    let rows = rows();
    let mut left_out = Vec::new();
    for method in methods() {
        let name = name(&method);
        let mut walked = BTreeSet::new();
        for row in rows.iter().filter(|row| row.method == name) {
            let places = fields(&method.input(), &row.request);
            let places = places
                .into_iter()
                .filter(|place| !row.other_forms.contains(&place.name().as_str()));
            walked.extend(places.map(|place| place.field.full_name().to_owned()));
        }
        if !rows.iter().any(|row| row.method == name) {
            left_out.push(name.clone());
        }
        let mut wanted = Vec::new();
        leaves(&method.input(), &mut wanted);
        let missing = wanted
            .into_iter()
            .filter(|field| !walked.contains(field.full_name()));
        left_out.extend(missing.map(|field| format!("{name}: {}", field.full_name())));
    }
    assert!(left_out.is_empty(), "give these a row: {left_out:#?}");
}

fn leaves(message: &MessageDescriptor, found: &mut Vec<FieldDescriptor>) {
    for field in message.fields() {
        match field.kind() {
            Kind::Message(inner) if !field.is_map() && !inner.full_name().starts_with("google.") => {
                leaves(&inner, found);
            }
            _ => found.push(field),
        }
    }
}
