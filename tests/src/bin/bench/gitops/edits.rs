//! What the edit of a single file costs.

use std::{hint::black_box, time::Instant};

use slipway_edit::{Edit, HelmImage, NewImage, Read, Source};

use crate::{Figure, percentile};

const TIMES: usize = 2000;
const SECTIONS: usize = 20;

/// One file.
struct Values(String);

impl Source for Values {
    type Error = std::convert::Infallible;

    fn read(&self, _: &str) -> Result<Read, Self::Error> {
        Ok(Read::Text(self.0.clone()))
    }
}

pub(crate) fn measure() -> Figure {
    let text: String = (0..SECTIONS).map(section).collect();
    let lines = text.lines().count();
    let values = Values(text);
    let mut times: Vec<f64> = (0..TIMES)
        .map(|number| {
            // Anywhere in the file.
            let path = format!("service{}.image", number % SECTIONS);
            let to = NewImage::new("", &format!("v2.{number}"), "").unwrap();
            let edit = Edit::HelmImage(HelmImage::new("values.yaml", &path, "", to).unwrap());
            let began = Instant::now();
            let edited = slipway_edit::apply(black_box(&[edit]), &values);
            let took = began.elapsed();
            let edited = edited.unwrap().unwrap();
            assert!(edited.files["values.yaml"].contains(&format!("tag: v2.{number} #")));
            took.as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    Figure::new(
        format!("edit of an image in a values file of {lines} lines"),
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        "",
        "p50 < 1 ms",
        p50 < 1.0,
    )
}

/// Of a chart with many parts.
fn section(number: usize) -> String {
    format!(
        "# Part {number}.\nservice{number}:\n  enabled: true\n  image:\n    repository: registry.example.com/shop/service{number}\n    \
         tag: v1.{number} # written by releases\n    pullPolicy: IfNotPresent\n  replicas: 2\n\n  resources:\n    \
         requests: {{ cpu: 100m, memory: \"128Mi\" }}\n    limits:\n      memory: 256Mi\n  env:\n    - name: LOG_LEVEL\n      \
         value: 'info'\n    - name: PORT\n      value: \"8080\"\n  service:\n    type: ClusterIP\n    port: 80\n  \
         probes: &probes{number}\n    path: /health\n    period: 10\n\n"
    )
}
