//! Charts of Helm are rendered before their values are committed, by the real Helm: what does not render any more is
//! not pushed, and what the chart alone does not show is pushed and says so.
#![allow(clippy::unwrap_used)] // helpers of tests

mod world;

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use slipway_proto::gitops::v1::{ApplyChangeRequest, HelmImage, RevertChangeRequest, change::Status, edit};
use slipway_testbed::tool;
use world::*;

/// Renders, whatever the image is.
const POD: &str = "kind: Pod\napiVersion: v1\nmetadata: {name: {{ .Release.Name }}}\nspec:\n  containers:\n  - name: app\n    image: \"{{ .Values.image.repository }}:{{ .Values.image.tag }}\"\n";
/// Refuses a tag.
const PICKY: &str = "{{ if eq .Values.image.tag \"bad\" }}{{ fail \"this tag is bad\" }}{{ end }}\n";
const VALUES: &str = "# Of all.\nimage:\n  repository: r.example/a\n  tag: v0\n";
const VALUES_OF_DEV: &str = "# Of dev.\nimage:\n  tag: v0 # ours\n";

/// A world with a chart, whose helm writes down what it renders.
struct Watched {
    world: World,
    log: PathBuf,
    config: String,
}

impl Watched {
    fn new(name: &str) -> Self {
        let world = World::new(name, &["a"]);
        let (log, program) = (world.path("rendered"), world.path("helm"));
        let real = tool("helm").unwrap();
        std::fs::write(
            &program,
            format!(
                "#!/bin/sh\nif [ \"$1\" = template ]; then echo \"$@\" >>{log}; fi\nexec {real} \"$@\"\n",
                log = log.display(),
                real = real.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = world.config(&world.sqlite(), "one", "127.0.0.1:0").replace(
            &format!("helm: {{path: {}}}", real.display()),
            &format!("helm: {{timeout: 20s, path: {}}}", program.display()),
        );
        assert!(config.contains(&program.display().to_string()), "{config}");
        let watched = Self { world, log, config };
        for (path, text) in [
            ("Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n"),
            ("values.yaml", VALUES),
            ("values-dev.yaml", VALUES_OF_DEV),
            ("envs/prod/values.yaml", VALUES_OF_DEV),
            ("templates/pod.yaml", POD),
        ] {
            watched.write(path, text);
        }
        watched
    }

    async fn start(&self) -> Running {
        start_with(&self.config).await.unwrap()
    }

    /// How often a chart was rendered.
    fn rendered(&self) -> usize {
        std::fs::read_to_string(&self.log).map_or(0, |log| log.lines().count())
    }

    /// Writes a file of the chart, or below the root with a slash before it.
    fn write(&self, path: &str, text: &str) {
        let path = path
            .strip_prefix('/')
            .map_or_else(|| format!("charts/a/{path}"), str::to_owned);
        self.world
            .remote
            .commit("main", "theirs", &[(&path, text.as_bytes())])
            .unwrap();
    }

    fn head(&self) -> String {
        self.world.remote.head("main").unwrap()
    }
}

/// Sets the tag in a file of the chart's values.
fn set(file: &str, tag: &str) -> ApplyChangeRequest {
    let image = HelmImage {
        file: file
            .strip_prefix('/')
            .map_or_else(|| format!("charts/a/{file}"), str::to_owned),
        path: "image".to_owned(),
        new_tag: tag.to_owned(),
        ..HelmImage::default()
    };
    let id = file.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let id = format!("{}-{tag}", id.trim_matches('-'));
    edit("a", &id, edit::Edit::HelmImage(image))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_breaks_its_chart_is_not_pushed() {
    let watched = Watched::new("gitops-charts-break");
    watched.write("templates/picky.yaml", PICKY);
    let running = watched.start().await;
    let mut client = running.client();
    for file in ["values.yaml", "values-dev.yaml", "envs/prod/values.yaml"] {
        pushed(&applied(&mut client, &set(file, "v1")).await, &[]);
        let head = watched.head();
        let with = match file {
            "values.yaml" => "charts/a would not render with this change; helm says: ".to_owned(),
            file => format!("charts/a with charts/a/{file} would not render with this change; helm says: "),
        };
        failed(
            &applied(&mut client, &set(file, "bad")).await,
            &[&with, "a/templates/picky.yaml", "this tag is bad"],
        );
        assert_eq!(watched.head(), head, "nothing is pushed");
        pushed(&applied(&mut client, &set(file, "v2")).await, &[]);
    }
    // A kustomization is its own business.
    pushed(&applied(&mut client, &set_tag("a", "bad")).await, &[]);

    // So it is with a schema.
    watched.write("templates/picky.yaml", "");
    let schema = r##"{"$schema": "http://json-schema.org/draft-07/schema#", "$defs": {"tag": {"pattern": "^v"}},
                      "properties": {"image": {"properties": {"tag": {"$ref": "#/$defs/tag"}}}}}"##;
    watched.write("values.schema.json", schema);
    pushed(&applied(&mut client, &set("values-dev.yaml", "v3")).await, &[]);
    failed(
        &applied(&mut client, &set("values-dev.yaml", "main")).await,
        &["would not render with this change", "not match pattern"],
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_push_with_what_breaks_a_chart_is_pushed() {
    let watched = Watched::new("gitops-charts-together");
    watched.write("templates/picky.yaml", PICKY);
    // It leaves the tag as all have it.
    watched.write("values-dev.yaml", "side:\n  image: b:1\nimage: {}\n");
    let running = watched.start().await;
    let mut client = running.client();
    pushed(&applied(&mut client, &set_tag("a", "v1")).await, &[]);
    let (go, log) = (watched.world.path("go"), watched.world.path("pushes"));
    watched.world.hook(
        "pre-receive",
        &format!(
            "echo >>{log}\nwhile [ ! -e {go} ]; do sleep 0.01; done",
            log = log.display(),
            go = go.display()
        ),
    );
    let first = apply(&mut client, &set_tag("a", "v2")).await;
    appears(&log).await;
    let breaks = apply(&mut client, &set("values.yaml", "bad")).await;
    let side = HelmImage {
        file: "charts/a/values-dev.yaml".to_owned(),
        path: "side.image".to_owned(),
        new_tag: "2".to_owned(),
        ..HelmImage::default()
    };
    let other = apply(&mut client, &edit("a", "side", edit::Edit::HelmImage(side))).await;
    std::fs::write(&go, "").unwrap();
    pushed(&finished(&mut client, &first.id).await, &[]);
    failed(&finished(&mut client, &breaks.id).await, &["this tag is bad"]);
    pushed(&finished(&mut client, &other.id).await, &[]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_does_not_stand_alone_is_not_refused() {
    let watched = Watched::new("gitops-charts-alone");
    let running = watched.start().await;
    let mut client = running.client();
    let alone = "it does not render by itself, and did not before this change; helm says: ";
    for (number, (template, words)) in [
        (
            "{{ required \"a host is needed\" .Values.host }}",
            "a host is needed",
        ),
        (
            "{{ if ne .Release.Name \"shop\" }}{{ fail \"another name\" }}{{ end }}",
            "another name",
        ),
        // Helm shows no environment to templates.
        ("{{ env \"HOME\" }}", "function \"env\" not defined"),
        (
            "a: {{ .Values.image.tag }}: b: c",
            "YAML parse error on a/templates/more.yaml",
        ),
        (
            "{{ define \"x\" }}{{ include \"x\" . }}{{ end }}{{ include \"x\" . }}",
            "error calling include",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        watched.write("templates/more.yaml", template);
        let change = applied(&mut client, &set("values-dev.yaml", &format!("t{number}"))).await;
        pushed(
            &change,
            &[
                "charts/a with charts/a/values-dev.yaml cannot be rendered here: ",
                alone,
                words,
            ],
        );
    }

    // Nothing makes up for values that cannot be read; still they do not keep a revert back.
    watched.write("templates/more.yaml", "");
    let change = applied(&mut client, &set("values-dev.yaml", "v8")).await;
    pushed(&change, &[]);
    let now = watched
        .world
        .remote
        .read("main", "charts/a/values-dev.yaml")
        .unwrap();
    let broken = format!("{}other: !!float abc\n", String::from_utf8(now).unwrap());
    watched.write("values-dev.yaml", &broken);
    failed(
        &applied(&mut client, &set("values-dev.yaml", "v9")).await,
        &[
            "charts/a with charts/a/values-dev.yaml does not render, and did not before this change: repair it",
            "failed to parse charts/a/values-dev.yaml",
        ],
    );
    let request = RevertChangeRequest {
        request_id: "back".to_owned(),
        id: change.id,
        ..RevertChangeRequest::default()
    };
    let revert = client
        .revert_change(request)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    pushed(
        &finished(&mut client, &revert.id).await,
        &["does not render, and did not before: helm says: failed to parse"],
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_helm_lacks_here_is_said() {
    let watched = Watched::new("gitops-charts-elsewhere");
    let running = watched.start().await;
    let mut client = running.client();
    let chart = |lines: &str| format!("apiVersion: v2\nname: a\nversion: 1.0.0\n{lines}\n");
    watched.write("/values/a.yaml", VALUES);
    pushed(
        &applied(&mut client, &set("/values/a.yaml", "v1")).await,
        &["values/a.yaml: there is no chart in its folder or above it"],
    );
    for (number, (path, text, words)) in [
        (
            "Chart.yaml",
            chart("dependencies: [{name: redis, version: 1.x, repository: 'https://charts.example'}]"),
            "it depends on charts that are not in this repository; helm says: ",
        ),
        (
            "Chart.yaml",
            chart("dependencies: [{name: x, version: 1.x, repository: 'file://../../../x'}]"),
            "its dependency x (../../../x) is not in this repository",
        ),
        (
            "Chart.yaml",
            chart("type: library"),
            "a library chart is rendered only as a part",
        ),
        (
            "charts/x-1.0.0.tgz",
            "version https://git-lfs.github.com/spec/v1\noid sha256:1a2b\nsize 12\n".to_owned(),
            "charts/a/charts/x-1.0.0.tgz is kept by Git LFS",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        watched.write("Chart.yaml", &chart(""));
        watched.write(path, &text);
        let change = applied(&mut client, &set("values-dev.yaml", &format!("t{number}"))).await;
        pushed(&change, &["charts/a cannot be rendered here: ", words]);
    }
    let before = watched.rendered();
    let secret = watched.world.path("secret");
    let target = secret.display().to_string();
    let links: [(&str, &[u8]); 1] = [("charts/a/link", target.as_bytes())];
    watched
        .world
        .remote
        .commit_links("main", "theirs", &links)
        .unwrap();
    pushed(
        &applied(&mut client, &set("values-dev.yaml", "v9")).await,
        &["charts/a/link is a symbolic link"],
    );
    assert_eq!(watched.rendered(), before);
    running.stop().await;

    let config = watched
        .config
        .replace("/helm}", "/no-helm}")
        .replace("data-one", "data-two");
    let running = start_with(&config.replace("ledger.db", "ledger-two.db"))
        .await
        .unwrap();
    watched
        .world
        .remote
        .remove("main", "theirs", &["charts/a/link"])
        .unwrap();
    pushed(
        &applied(&mut running.client(), &set("values-dev.yaml", "v10")).await,
        &["/no-helm is not helm 3 or 4: install one, or set helm.path"],
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_template_takes_is_bounded() {
    let mut watched = Watched::new("gitops-charts-bounds");
    watched.config = watched
        .config
        .replace("timeout: 20s", "timeout: 5s, max_output_bytes: 100000");
    let running = watched.start().await;
    let mut client = running.client();
    for (number, (template, words)) in [
        ("{{ range until 20000 }}\nk{{ . }}: v\n{{ end }}", "wrote more than 100000 bytes"),
        (
            "{{ range until 1000000 }}{{ range until 1000 }}{{ range until 1000 }}{{ end }}{{ end }}{{ end }}",
            "took longer than 5s",
        ),
        ("{{ $all := repeat 4000000000 \"x\" }}", "helm needs too much memory for it"),
    ]
    .into_iter()
    .enumerate()
    {
        watched.write("templates/more.yaml", template);
        let change = applied(&mut client, &set("values-dev.yaml", &format!("t{number}"))).await;
        pushed(&change, &["charts/a cannot be rendered here: ", words]);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_reads_nothing_but_itself() {
    let watched = Watched::new("gitops-charts-confined");
    // As a schema it accepts nothing.
    let secret = watched.world.path("secret.json");
    std::fs::write(&secret, "{\"not\": {}}").unwrap();
    watched.write("/secret", "of the repository");
    watched.write(
        "templates/more.yaml",
        &format!(
            "{{{{ if or (.Files.Get \"../../secret\") (.Files.Get \"{}\") }}}}{{{{ fail \"read\" }}}}{{{{ end }}}}\n\
             {{{{ if lookup \"v1\" \"Secret\" \"a\" \"b\" }}}}{{{{ fail \"looked up\" }}}}{{{{ end }}}}\n\
             {{{{ if getHostByName \"localhost\" }}}}{{{{ fail \"resolved\" }}}}{{{{ end }}}}\n",
            secret.display()
        ),
    );
    let schema = format!(
        "{{\"properties\": {{\"image\": {{\"$ref\": \"file://{}\"}}}}}}",
        secret.display()
    );
    watched.write("values.schema.json", &schema);
    let running = watched.start().await;
    let mut client = running.client();
    // Had it been read, it would not render.
    pushed(&applied(&mut client, &set("values-dev.yaml", "v1")).await, &[]);
    assert_eq!(watched.rendered(), 1);

    // A comma in a name does not make a second file of values.
    let file = format!("dev,{}", secret.display());
    watched.write(&file, VALUES_OF_DEV);
    watched.write("values.schema.json", "{}");
    pushed(&applied(&mut client, &set(&file, "v2")).await, &[]);
    assert_eq!(watched.rendered(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_rendered_once_for_all_images() {
    let watched = Watched::new("gitops-charts-once");
    let running = watched.start().await;
    let mut client = running.client();
    for tag in ["v1", "v2", "1.10", "v3"] {
        pushed(&applied(&mut client, &set("values-dev.yaml", tag)).await, &[]);
    }
    assert_eq!(watched.rendered(), 1);
    // With other values it is another rendering.
    for tag in ["v1", "v2"] {
        pushed(&applied(&mut client, &set("values.yaml", tag)).await, &[]);
    }
    assert_eq!(watched.rendered(), 2);
    watched.write("templates/more.yaml", "# nothing");
    pushed(&applied(&mut client, &set("values-dev.yaml", "v4")).await, &[]);
    assert_eq!(watched.rendered(), 3);

    // What looks at the tag is asked for each.
    watched.write("templates/more.yaml", PICKY);
    for (number, tag) in ["v5", "v6", "v7"].into_iter().enumerate() {
        pushed(&applied(&mut client, &set("values-dev.yaml", tag)).await, &[]);
        assert_eq!(watched.rendered(), 4 + number);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_of_the_same_repository_are_used() {
    let watched = Watched::new("gitops-charts-local");
    watched.write(
        "Chart.yaml",
        "apiVersion: v2\nname: a\nversion: 1.0.0\ndependencies:\n- {name: names, version: 1.x, repository: 'file://../../lib/names'}\n- {name: own, version: 1.x, repository: 'https://charts.example'}\n",
    );
    watched.write(
        "charts/own/Chart.yaml",
        "apiVersion: v2\nname: own\nversion: 1.0.0\n",
    );
    watched.write(
        "/lib/names/Chart.yaml",
        "apiVersion: v2\nname: names\nversion: 1.2.0\ntype: library\n",
    );
    let names = "{{ define \"names.tag\" }}{{ if eq .Values.image.tag \"bad\" }}{{ fail \"by a dependency\" }}{{ end }}{{ end }}";
    watched.write("/lib/names/templates/_names.tpl", names);
    watched.write("templates/more.yaml", "{{ include \"names.tag\" . }}");
    let running = watched.start().await;
    let mut client = running.client();
    pushed(&applied(&mut client, &set("values-dev.yaml", "v1")).await, &[]);
    failed(
        &applied(&mut client, &set("values-dev.yaml", "bad")).await,
        &["by a dependency"],
    );
    let change = applied(&mut client, &set("values-dev.yaml", "v2")).await;
    assert_status(&change, Status::Pushed);
    running.stop().await;
}
