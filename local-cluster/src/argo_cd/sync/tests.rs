use super::*;

fn object(kind: &str, name: &str, annotations: &Value) -> Value {
    let api = match kind {
        "Job" => "batch/v1",
        "Deployment" => "apps/v1",
        _ => "v1",
    };
    json!({"apiVersion": api, "kind": kind,
           "metadata": {"name": name, "namespace": "shop", "generation": 1, "annotations": annotations}})
}

fn hook(name: &str, phase: &str) -> Value {
    object("Job", name, &json!({"argocd.argoproj.io/hook": phase}))
}

fn in_wave(kind: &str, name: &str, wave: i64) -> Value {
    object(
        kind,
        name,
        &json!({"argocd.argoproj.io/sync-wave": wave.to_string()}),
    )
}

/// A sync played through: what is applied becomes live with the status that `status` gives it.
struct Course {
    targets: Vec<Value>,
    live: BTreeMap<Key, Arc<Value>>,
    extra: Vec<Key>,
    results: Vec<Value>,
    prune: bool,
}

impl Course {
    fn new(targets: Vec<Value>) -> Self {
        Self {
            targets,
            live: BTreeMap::new(),
            extra: Vec::new(),
            results: Vec::new(),
            prune: false,
        }
    }

    fn tasks(&self) -> Vec<Task> {
        let plan = Plan {
            targets: &self.targets,
            live: &self.live,
            extra: &self.extra,
            results: &self.results,
            only: &[],
            prune: self.prune,
            hooks: true,
        };
        tasks(&plan, |phase| format!("abc-{}", phase.as_str().to_lowercase()))
    }

    /// One step; what it runs is named.
    fn step(&mut self) -> Result<Vec<String>, Step> {
        let mut tasks = self.tasks();
        let step = step(&mut tasks);
        let mut ran = Vec::new();
        if let Step::Run(indices) = &step {
            for index in indices {
                let task = &mut tasks[*index];
                ran.push(task.key.name.clone());
                match &task.target {
                    Some(target) => {
                        self.live.insert(task.key.clone(), Arc::new(target.clone()));
                        let status = if task.hook { "" } else { "Synced" };
                        task.set(status, Progress::Running, "configured");
                    }
                    None => {
                        self.live.remove(&task.key);
                        self.extra.retain(|key| *key != task.key);
                        task.set("Pruned", Progress::Succeeded, "pruned");
                    }
                }
            }
        }
        self.results = tasks.iter().filter_map(Task::result).collect();
        match step {
            Step::Run(_) => Ok(ran),
            other => Err(other),
        }
    }

    fn now(&mut self, name: &str, status: Value) {
        let (_, live) = self.live.iter_mut().find(|(key, _)| key.name == name).unwrap();
        Arc::make_mut(live)["status"] = status;
    }
}

fn complete() -> Value {
    json!({"conditions": [{"type": "Complete", "status": "True"}]})
}

fn failed() -> Value {
    json!({"conditions": [{"type": "Failed", "status": "True", "message": "it broke"}]})
}

fn healthy() -> Value {
    json!({"observedGeneration": 1})
}

#[test]
fn one_wave_ends_without_waiting_for_health() {
    let mut course = Course::new(vec![
        object("Deployment", "web", &json!({})),
        object("ConfigMap", "settings", &json!({})),
    ]);
    assert_eq!(course.step().unwrap(), ["settings", "web"]);
    assert_eq!(
        course.step(),
        Err(Step::Succeeded("successfully synced (all tasks run)"))
    );
    assert_eq!(course.results[1]["status"], "Synced");
    assert_eq!(course.results[1]["hookPhase"], "Running");
}

#[test]
fn waves_wait_for_health() {
    let mut course = Course::new(vec![
        in_wave("Deployment", "late", 5),
        in_wave("Deployment", "early", -1),
    ]);
    assert_eq!(course.step().unwrap(), ["early"]);
    assert_eq!(
        course.step(),
        Err(Step::Wait(
            "waiting for healthy state of apps/Deployment/early".to_owned()
        ))
    );
    course.now("early", healthy());
    assert_eq!(course.step().unwrap(), ["late"]);
    course.now("late", healthy());
    assert!(matches!(course.step(), Err(Step::Succeeded(_))));
}

#[test]
fn hooks_run_before_and_after() {
    let mut course = Course::new(vec![
        hook("after", "PostSync"),
        object("Deployment", "web", &json!({})),
        hook("before", "PreSync"),
        hook("sad", "SyncFail"),
    ]);
    assert_eq!(course.step().unwrap(), ["before"]);
    assert_eq!(
        course.step(),
        Err(Step::Wait(
            "waiting for completion of hook batch/Job/before".to_owned()
        ))
    );
    course.now("before", complete());
    assert_eq!(course.step().unwrap(), ["web"]);
    assert!(matches!(course.step(), Err(Step::Wait(_))));
    course.now("web", healthy());
    assert_eq!(course.step().unwrap(), ["after"]);
    course.now("after", complete());
    assert!(matches!(course.step(), Err(Step::Succeeded(_))));
    let before = course.results.iter().find(|r| r["name"] == "before").unwrap();
    assert_eq!(
        (&before["hookType"], &before["hookPhase"]),
        (&json!("PreSync"), &json!("Succeeded"))
    );
}

#[test]
fn a_hook_that_fails_stops_everything_but_the_hooks_for_that() {
    let mut course = Course::new(vec![
        object("Deployment", "web", &json!({})),
        hook("before", "PreSync"),
        hook("sad", "SyncFail"),
    ]);
    assert_eq!(course.step().unwrap(), ["before"]);
    course.now("before", failed());
    assert_eq!(course.step().unwrap(), ["sad"]);
    course.now("sad", complete());
    let expected = "one or more synchronization tasks completed unsuccessfully".to_owned();
    assert_eq!(course.step(), Err(Step::Failed(expected)));
    let before = course.results.iter().find(|r| r["name"] == "before").unwrap();
    assert_eq!(
        (&before["hookPhase"], &before["message"]),
        (&json!("Failed"), &json!("it broke"))
    );
    assert!(!course.live.keys().any(|key| key.name == "web"));
}

#[test]
fn what_is_in_git_no_more_goes_only_when_asked() {
    let old = object("ConfigMap", "old", &json!({}));
    let mut course = Course::new(vec![object("ConfigMap", "new", &json!({}))]);
    course.live.insert(Key::of(&old), Arc::new(old.clone()));
    course.extra.push(Key::of(&old));
    assert_eq!(course.step().unwrap(), ["new"]);
    assert!(matches!(course.step(), Err(Step::Succeeded(_))));
    let skipped = course.results.iter().find(|r| r["name"] == "old").unwrap();
    assert_eq!(
        (&skipped["status"], &skipped["message"]),
        (&json!("PruneSkipped"), &json!("ignored (requires pruning)"))
    );

    (course.results, course.prune) = (Vec::new(), true);
    assert_eq!(course.step().unwrap(), ["new", "old"]);
    assert!(matches!(course.step(), Err(Step::Succeeded(_))));
    let pruned = course.results.iter().find(|r| r["name"] == "old").unwrap();
    assert_eq!(pruned["status"], "Pruned");
    // One that has finalizers is waited for.
    course.live.insert(Key::of(&old), Arc::new(old.clone()));
    course.extra.push(Key::of(&old));
    let waiting = "waiting for deletion of /ConfigMap/old".to_owned();
    assert_eq!(course.step(), Err(Step::Wait(waiting)));
}

#[test]
fn only_some_and_without_hooks() {
    let targets = [
        hook("before", "PreSync"),
        object("ConfigMap", "a", &json!({})),
        object("ConfigMap", "b", &json!({})),
    ];
    let plan = Plan {
        targets: &targets,
        live: &BTreeMap::new(),
        extra: &[],
        results: &[],
        only: &[json!({"kind": "ConfigMap", "name": "b"})],
        prune: false,
        hooks: false,
    };
    let found = tasks(&plan, |_| String::new());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key.name, "b");
}

#[test]
fn hooks_without_a_name_get_one() {
    let mut hook = hook("", "PreSync,PostSync");
    hook["metadata"]["generateName"] = json!("migrate-");
    let names: Vec<String> = Course::new(vec![hook])
        .tasks()
        .into_iter()
        .map(|t| t.key.name)
        .collect();
    assert_eq!(names, ["migrate-abc-presync", "migrate-abc-postsync"]);
}
