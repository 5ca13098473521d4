//! YAML as people write it: any order, indentation, quoting, comments, blank lines, flow and block, line ends.
//! Generated at random, so that failures shrink to few and simple lines.

/// Bytes that decide; zero, the plainest choice, when they are used up.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    bytes: Vec<u8>,
    next: usize,
}

impl Dice {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            next: 0,
        }
    }

    pub(crate) fn below(&mut self, sides: usize) -> usize {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(byte) % sides
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            // Zero leaves it where it is.
            let with = last - self.below(last + 1);
            list.swap(last, with);
        }
    }
}

/// What a text is made into at last.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    crlf: bool,
    bom: bool,
    no_newline: bool,
}

/// Writes lines.
pub(crate) struct Writer {
    pub(crate) dice: Dice,
    lines: Vec<String>,
    /// One more column of indentation: 2 or 4.
    step: usize,
    /// How far lists are indented from their key.
    list: usize,
    anchors: usize,
    ends: Ends,
    /// Comments and blank lines are allowed here.
    loose: bool,
}

const COMMENTS: [&str; 6] = [
    " # c",
    "   # newTag: v1 {\"$imagepolicy\": \"x:y\"}",
    " #",
    "\t# tab: 'x'",
    " # é – «x» [1]",
    "  ",
];
const KEYS: [&str; 8] = [
    "labels",
    "namespace",
    "'quoted key'",
    "\"a.b/c\"",
    "a.b/c-d",
    "vars",
    "x_1",
    "commonLabels",
];
const PLAIN: [&str; 12] = [
    "v1",
    "latest",
    "1.44.0",
    "1a2b3c4",
    "1.10",
    "true",
    "2026-01-31",
    "0123",
    "12e5",
    "null",
    "a b",
    "sha256:00aa",
];

impl Writer {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut dice = Dice::new(bytes);
        let step = dice.pick(&[2, 4, 3]);
        let list = dice.pick(&[0, 2, 4]);
        let ends = Ends {
            crlf: dice.once_in(4),
            bom: dice.once_in(6),
            no_newline: dice.once_in(4),
        };
        Self {
            dice,
            lines: Vec::new(),
            step,
            list,
            anchors: 0,
            ends,
            loose: true,
        }
    }

    pub(crate) fn text(self) -> String {
        let Ends {
            crlf,
            bom,
            no_newline,
        } = self.ends;
        let mut text = self.lines.join("\n");
        text.push('\n');
        if no_newline {
            text.truncate(text.trim_end_matches([' ', '\n', '\t']).len());
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        if bom {
            text.insert(0, '\u{feff}');
        }
        text
    }

    /// A line, with what may come before and after it.
    pub(crate) fn line(&mut self, indent: usize, text: &str) {
        if self.loose {
            match self.dice.below(14) {
                13 => self.lines.push(String::new()),
                12 => {
                    let indent = self.dice.below(7);
                    self.lines.push(format!("{}# - name: app", " ".repeat(indent)));
                }
                11 => self.lines.push("   ".to_owned()),
                _ => {}
            }
        }
        let mut line = format!("{}{text}", " ".repeat(indent));
        if self.loose && self.dice.once_in(5) {
            line.push_str(self.dice.pick(&COMMENTS));
        }
        self.lines.push(line);
    }

    /// A text as a string, in some quotes or none.
    pub(crate) fn string(&mut self, text: &str) -> String {
        let plain = super::reader::is_text(text)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.contains([' ', '#'])
            && !text.ends_with(':');
        let written = match self.dice.below(6) {
            4 => format!("'{text}'"),
            5 => format!("\"{text}\""),
            _ if plain => text.to_owned(),
            _ => format!("\"{text}\""),
        };
        match self.dice.below(40) {
            39 => format!("!!str {written}"),
            38 => format!("{}{written}", self.anchor()),
            37 => format!("!!str {}{written}", self.anchor()),
            _ => written,
        }
    }

    /// An anchor that a later alias may use.
    fn anchor(&mut self) -> String {
        self.anchors += 1;
        format!("&a{} ", self.anchors)
    }

    /// Some value in one line: a string, or a number, a boolean, null.
    fn scalar(&mut self) -> String {
        let text = self.dice.pick(&PLAIN);
        match self.dice.below(8) {
            4 => format!("'{text}'"),
            5 => format!("\"{text}\""),
            6 if self.anchors > 0 => format!("*a{}", self.anchors),
            7 => format!("{}{text}", self.anchor()),
            _ => text.to_owned(),
        }
    }

    fn flow(&mut self, depth: usize) -> String {
        let items: Vec<String> = (0..self.dice.below(4))
            .map(|number| match self.dice.below(if depth > 2 { 1 } else { 3 }) {
                0 => self.scalar(),
                1 => format!(
                    "{{k{number}: {}, image: {}}}",
                    self.scalar(),
                    self.flow(depth + 1)
                ),
                _ => self.flow(depth + 1),
            })
            .collect();
        let space = self.dice.pick(&["", " "]);
        format!("[{space}{}{space}]", items.join(", "))
    }

    /// In any order, except for an alias, which has to come after its anchor.
    fn shuffle(&mut self, fields: &mut [(&str, String)]) {
        if !fields.iter().any(|(_, value)| value.contains('*')) {
            self.dice.shuffle(fields);
        }
    }

    /// Keys that no edit means.
    pub(crate) fn filler(&mut self, indent: usize, salt: &str) {
        for number in 0..self.dice.below(3) {
            let key = self.dice.pick(&KEYS);
            let key = match key.strip_suffix(['\'', '"']) {
                Some(open) => format!("{open}-{salt}{number}{}", &key[..1]),
                None => format!("{key}-{salt}{number}"),
            };
            self.value(indent, &key, 0);
        }
    }

    fn value(&mut self, indent: usize, key: &str, depth: usize) {
        let deeper = indent + self.step;
        match self.dice.below(if depth > 2 { 3 } else { 8 }) {
            0 => {
                let value = self.scalar();
                self.line(indent, &format!("{key}: {value}"));
            }
            1 => self.line(indent, &format!("{key}:")),
            2 => {
                let value = self.flow(0);
                self.line(indent, &format!("{key}: {value}"));
            }
            3 => {
                // What a block holds is a text, whatever it looks like.
                let head = self.dice.pick(&["|", "|-", ">", ">-", "|+"]);
                self.line(indent, &format!("{key}: {head}"));
                self.loose = false;
                for line in [
                    "images:",
                    "- name: app",
                    "  newTag: v1 # no comment",
                    "",
                    "image: x:1",
                ] {
                    let at = if line.is_empty() { 0 } else { deeper };
                    self.line(at, line);
                }
                self.loose = true;
            }
            4 => {
                // Over several lines.
                self.line(indent, &format!("{key}: ["));
                for _ in 0..=self.dice.below(2) {
                    let value = self.scalar();
                    self.line(deeper, &format!("{value},"));
                }
                self.line(deeper, "]");
            }
            5 => {
                self.line(indent, &format!("{key}:"));
                for number in 0..=self.dice.below(2) {
                    self.value(deeper, &format!("k{number}"), depth + 1);
                }
            }
            _ => {
                self.line(indent, &format!("{key}:"));
                let at = indent + self.list;
                for _ in 0..=self.dice.below(2) {
                    let value = self.scalar();
                    self.line(at, &format!("- {value}"));
                }
            }
        }
    }

    /// The items of a list, each a mapping with the same fields in some order, in block or in flow.
    pub(crate) fn items(&mut self, indent: usize, key: &str, items: &[Vec<(&str, String)>]) {
        if items.is_empty() {
            let empty = self.dice.pick(&[" []", "", " [ ]", " null"]);
            self.line(indent, &format!("{key}:{empty}"));
            return;
        }
        let mut items = items.to_vec();
        for fields in &mut items {
            self.shuffle(fields);
        }
        if self.dice.once_in(8) {
            let items: Vec<String> = items.iter().map(|fields| self.flow_of(fields)).collect();
            if self.dice.once_in(2) {
                self.line(indent, &format!("{key}: ["));
                for item in &items {
                    self.line(indent + self.step, &format!("{item},"));
                }
                self.line(indent + self.step, "]");
            } else {
                self.line(indent, &format!("{key}: [{}]", items.join(", ")));
            }
            return;
        }
        let anchor = if self.dice.once_in(30) {
            format!(" {}", self.anchor().trim_end())
        } else {
            String::new()
        };
        self.line(indent, &format!("{key}:{anchor}"));
        let at = indent + self.list;
        for fields in &items {
            if self.dice.once_in(8) {
                let item = self.flow_of(fields);
                self.line(at, &format!("- {item}"));
                continue;
            }
            let gap = self.dice.pick(&[1, 1, 3]);
            let mut lead = format!("-{}", " ".repeat(gap));
            if self.dice.once_in(12) {
                self.line(at, "-");
                lead = " ".repeat(1 + gap);
            }
            for (key, value) in fields {
                self.line(at, &format!("{lead}{key}: {value}"));
                lead = " ".repeat(1 + gap);
            }
        }
    }

    fn flow_of(&mut self, fields: &[(&str, String)]) -> String {
        let fields: Vec<String> = fields
            .iter()
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        let space = self.dice.pick(&["", " "]);
        format!("{{{space}{}{space}}}", fields.join(", "))
    }

    /// Fields of a mapping in some order.
    fn fields(&mut self, indent: usize, fields: &[(&str, String)]) {
        let mut fields = fields.to_vec();
        self.shuffle(&mut fields);
        for (key, value) in &fields {
            self.line(indent, &format!("{key}: {value}"));
        }
    }

    fn marker(&mut self, first: bool) {
        // Anchors end with their document.
        self.anchors = 0;
        if !first || self.dice.once_in(3) {
            if !first && self.dice.once_in(4) {
                self.lines.push("...".to_owned());
            }
            self.line(0, "---");
        }
    }

    fn tag(&mut self) -> String {
        let tag = self.dice.pick(&PLAIN[..10]);
        // As people do: a version that is a number to YAML.
        if self.dice.once_in(8) {
            tag.to_owned()
        } else {
            self.string(tag)
        }
    }
}

/// The names of a kustomization's entries.
pub(crate) const NAMES: [&str; 3] = ["app", "r.example:5000/team/api", "docker.io/library/redis"];

/// A kustomization with up to three entries; it builds on `deploy.yaml`.
pub(crate) fn kustomization(bytes: &[u8]) -> String {
    let mut writer = Writer::new(bytes);
    writer.marker(true);
    writer.filler(0, "a");
    let before = writer.dice.once_in(2);
    if before {
        writer.line(0, "resources: [deploy.yaml]");
    }
    let count = writer.dice.below(5);
    if count < 4 {
        let items: Vec<Vec<(&str, String)>> = NAMES[..count]
            .iter()
            .map(|name| {
                let mut fields = vec![("name", writer.string(name))];
                for key in ["newName", "newTag", "digest", "tagSuffix"] {
                    if !writer.dice.once_in(2) {
                        continue;
                    }
                    let value = match key {
                        "newName" => writer.string("r.example/other"),
                        "newTag" => writer.tag(),
                        "digest" => writer.string(super::images::OTHER_DIGEST),
                        _ => writer.string("-arm"),
                    };
                    fields.push((key, value));
                }
                fields
            })
            .collect();
        writer.items(0, "images", &items);
    }
    if !before {
        writer.line(0, "resources:");
        writer.line(writer.list, "- deploy.yaml");
    }
    writer.filler(0, "z");
    writer.text()
}

/// References as manifests have them.
const REFERENCES: [&str; 6] = [
    "r.example:5000/team/api:v1",
    "app",
    "app:1.10",
    "docker.io/library/redis:8.8.0@sha256:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100",
    "app@sha256:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100",
    "localhost/app:latest",
];

/// One to three objects, most of them with containers.
pub(crate) fn manifests(bytes: &[u8]) -> String {
    let mut writer = Writer::new(bytes);
    for number in 0..=writer.dice.below(3) {
        writer.marker(number == 0);
        let (kind, api, template) = writer.dice.pick(&[
            ("Deployment", "apps/v1", "spec/template/spec"),
            ("StatefulSet", "apps/v1", "spec/template/spec"),
            ("DaemonSet", "apps/v1", "spec/template/spec"),
            ("Job", "batch/v1", "spec/template/spec"),
            ("CronJob", "batch/v1", "spec/jobTemplate/spec/template/spec"),
            ("Pod", "v1", "spec"),
            ("ConfigMap", "v1", ""),
        ]);
        writer.fields(0, &[("apiVersion", api.to_owned()), ("kind", kind.to_owned())]);
        writer.line(0, "metadata:");
        writer.line(writer.step, &format!("name: object-{number}"));
        writer.filler(writer.step, "m");
        let mut indent = 0;
        for step in template.split('/').filter(|step| !step.is_empty()) {
            writer.line(indent, &format!("{step}:"));
            indent += writer.step;
            writer.filler(indent, step);
        }
        if indent > 0 {
            for (list, names) in [
                ("initContainers", ["first", "second"]),
                ("containers", ["web", "side"]),
            ] {
                let least = usize::from(list == "containers");
                let count = least + writer.dice.below(names.len() + 1 - least);
                let containers: Vec<Vec<(&str, String)>> = names[..count]
                    .iter()
                    .map(|name| {
                        let reference = writer.dice.pick(&REFERENCES);
                        vec![
                            ("name", writer.string(name)),
                            ("image", writer.string(reference)),
                            ("imagePullPolicy", "Always".to_owned()),
                            ("args", writer.flow(0)),
                        ]
                    })
                    .collect();
                writer.items(indent, list, &containers);
            }
        }
    }
    writer.text()
}

/// Values with images as mappings and as strings, at the root, below a key and in a list.
pub(crate) fn values(bytes: &[u8]) -> String {
    let mut writer = Writer::new(bytes);
    writer.marker(true);
    writer.filler(0, "a");
    for (key, indent) in [("image", 0), ("frontend", 1)] {
        let indent = indent * writer.step;
        if indent > 0 {
            writer.line(0, &format!("{key}:"));
        }
        match writer.dice.below(4) {
            3 => {
                let reference = writer.dice.pick(&REFERENCES);
                let value = writer.string(reference);
                writer.line(indent, &format!("image: {value}"));
            }
            other => {
                let mut fields = vec![
                    ("repository", writer.string("r.example:5000/team/api")),
                    ("tag", writer.tag()),
                    ("pullPolicy", "Always".to_owned()),
                ];
                if other == 1 {
                    let digest = writer.dice.pick(&["", super::images::OTHER_DIGEST]);
                    fields.push(("digest", writer.string(digest)));
                }
                let anchor = if writer.dice.once_in(12) {
                    writer.anchor()
                } else {
                    String::new()
                };
                if writer.dice.once_in(6) {
                    let all = writer.flow_of(&fields);
                    writer.line(indent, &format!("image: {anchor}{all}"));
                } else {
                    writer.line(indent, format!("image: {anchor}").trim_end());
                    let deeper = indent + writer.step;
                    writer.fields(deeper, &fields);
                    writer.filler(deeper, "i");
                }
            }
        }
        writer.filler(indent, "f");
    }
    let workers: Vec<Vec<(&str, String)>> = ["mail", "cron"][..writer.dice.below(3)]
        .iter()
        .map(|name| {
            let reference = writer.dice.pick(&REFERENCES);
            vec![("name", writer.string(name)), ("image", writer.string(reference))]
        })
        .collect();
    writer.items(0, "workers", &workers);
    writer.filler(0, "z");
    writer.text()
}
