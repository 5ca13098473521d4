//! From an image and a container's spec to the program to run: its path, arguments, environment, directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::kubelet::environment::{Source, environment, expand};
use crate::kubelet::image::Image;
use crate::kubelet::refusal::{Refusal, refuse};
use crate::object::text;
use crate::shim::Program;

/// The number of links that the kernel follows.
const MAX_LINKS: u32 = 40;

/// Puts the program together. `lookup` finds a ConfigMap or Secret in the pod's namespace.
///
/// # Errors
/// When there is nothing to run, the program cannot be run here, or a ConfigMap or Secret is missing.
pub(crate) fn program(
    image: &Image,
    pod: &Value,
    container: &Value,
    ports: &Value,
    lookup: impl Fn(Source, &str) -> Option<Value>,
) -> Result<Program, Refusal> {
    let env = environment(image, pod, container, ports, lookup)?;
    let own = |field: &str| -> Option<Vec<String>> {
        let values = container[field].as_array().filter(|a| !a.is_empty())?;
        Some(
            values
                .iter()
                .map(|v| expand(v.as_str().unwrap_or(""), &env))
                .collect(),
        )
    };
    let (command, args) = (own("command"), own("args"));
    let mut line = match &command {
        Some(command) => command.clone(),
        None => image.run.entrypoint.clone().unwrap_or_default(),
    };
    line.extend(match (args, &command) {
        (Some(args), _) => args,
        (None, None) => image.run.cmd.clone().unwrap_or_default(),
        (None, Some(_)) => Vec::new(),
    });
    let mut line = line.into_iter();
    let Some(first) = line.next().filter(|first| !first.is_empty()) else {
        return Err(refuse(
            "no command specified: the image has neither Entrypoint nor Cmd",
        ));
    };
    let working_dir = match text(container, &["workingDir"]) {
        "" => image.run.working_dir.clone().unwrap_or_default(),
        dir => dir.to_owned(),
    };
    let dir = resolve(&image.rootfs, Path::new("/"), Path::new(&working_dir))
        .filter(|dir| dir.is_dir())
        .ok_or_else(|| refuse(format!("working directory {working_dir:?} is not in the image")))?;
    let path = find_program(image, &env, &first, &working_dir)
        .ok_or_else(|| refuse(format!("exec: {first:?}: no such file in the image")))?;
    check_executable(&path, &first)?;
    Ok(Program {
        path,
        args: line.collect(),
        env: env.into_iter().collect(),
        dir,
    })
}

fn find_program(
    image: &Image,
    env: &BTreeMap<String, String>,
    program: &str,
    working_dir: &str,
) -> Option<PathBuf> {
    let root = &image.rootfs;
    let is_file = |path: &PathBuf| path.is_file();
    if program.contains('/') {
        return resolve(root, Path::new(working_dir), Path::new(program)).filter(is_file);
    }
    let path = env.get("PATH").map_or(
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        String::as_str,
    );
    path.split(':')
        .find_map(|dir| resolve(root, Path::new(dir), Path::new(program)).filter(is_file))
}

/// The real location of an image's path: links are followed as if `root` were `/`, so none leads out of it.
fn resolve(root: &Path, base: &Path, path: &Path) -> Option<PathBuf> {
    let mut waiting: Vec<std::ffi::OsString> = Vec::new();
    let push = |waiting: &mut Vec<std::ffi::OsString>, path: &Path| {
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => waiting.push(name.to_owned()),
                Component::ParentDir => waiting.push("..".into()),
                _ => {}
            }
        }
    };
    push(&mut waiting, path);
    if !path.is_absolute() {
        push(&mut waiting, base);
    }
    let (mut inside, mut links) = (PathBuf::new(), 0);
    while let Some(part) = waiting.pop() {
        if part == ".." {
            inside.pop();
            continue;
        }
        let candidate = root.join(&inside).join(&part);
        let is_link = std::fs::symlink_metadata(&candidate).is_ok_and(|found| found.is_symlink());
        if !is_link {
            inside.push(part);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let target = std::fs::read_link(&candidate).ok()?;
        if target.is_absolute() {
            inside = PathBuf::new();
        }
        push(&mut waiting, &target);
    }
    let found = root.join(inside);
    found.exists().then_some(found)
}

/// Refuses what cannot run without the image's own file system around it.
fn check_executable(path: &Path, name: &str) -> Result<(), Refusal> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| refuse(format!("exec: {name:?}: {error}"));
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o111 == 0 {
        return Err(refuse(format!("exec: {name:?}: permission denied")));
    }
    let mut head = Vec::new();
    // Program headers follow the header closely in every executable that linkers make.
    File::open(path)
        .and_then(|file| file.take(64 * 1024).read_to_end(&mut head))
        .map_err(failed)?;
    if head.starts_with(b"#!") {
        return Err(refuse(format!(
            "{name} is a script; local-cluster runs static binaries only, since it gives containers no file system of their own"
        )));
    }
    match has_interpreter(&head) {
        None => Err(refuse(format!(
            "exec: {name:?}: exec format error: not a 64-bit little-endian ELF program"
        ))),
        Some(true) => Err(refuse(format!(
            "{name} is dynamically linked (it has a program interpreter); local-cluster runs static binaries only, build it with musl or -static"
        ))),
        Some(false) => Ok(()),
    }
}

/// Whether an ELF file asks for a program interpreter (`PT_INTERP`); `None` if it is not one we can read.
fn has_interpreter(head: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(32)?).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for index in 0..count {
        if u32_at(table.checked_add(index * size)?)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::image::Run;
    use crate::kubelet::refusal::misconfigured;
    use serde_json::json;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn elf(segment: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    fn image(program: &[u8]) -> (tempfile::TempDir, Image) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bin/app");
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let run = Run {
            entrypoint: Some(vec!["/bin/app".to_owned()]),
            cmd: Some(vec!["serve".to_owned()]),
            env: Some(vec!["PATH=/bin".to_owned(), "A=image".to_owned()]),
            working_dir: None,
        };
        let image = Image {
            id: String::new(),
            rootfs: dir.path().to_owned(),
            run,
        };
        (dir, image)
    }

    fn run(image: &Image, container: &Value) -> Result<Program, Refusal> {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "dev", "labels": {"app": "web"}}});
        let find = |source: Source, name: &str| match (source, name) {
            (Source::ConfigMap, "settings") => Some(json!({"data": {"mode": "fast"}})),
            (Source::Secret, "keys") => Some(json!({"data": {"token": "aHVzaA=="}})),
            _ => None,
        };
        program(image, &pod, container, &json!({"PORT": 20_001}), find)
    }

    #[test]
    fn command_and_args_override_the_images() {
        let (_dir, image) = image(&elf(1));
        let table = [
            (json!({}), vec!["serve"]),
            (json!({"args": ["x"]}), vec!["x"]),
            (json!({"command": ["app"]}), vec![]),
            (
                json!({"command": ["/bin/app", "$(PORT)", "$$(PORT)", "$(NONE)"]}),
                vec!["20001", "$(PORT)", "$(NONE)"],
            ),
        ];
        for (container, args) in table {
            assert_eq!(run(&image, &container).unwrap().args, args, "{container}");
        }
    }

    #[test]
    fn the_environment_comes_from_image_config_maps_and_pod() {
        let (_dir, image) = image(&elf(1));
        let container = json!({"envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"},
                                           {"secretRef": {"name": "keys"}, "prefix": "S_"}], "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "A", "value": "pod"}, {"name": "B", "value": "$(A)!"},
            {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]});
        let env: BTreeMap<String, String> = run(&image, &container).unwrap().env.into_iter().collect();
        let table = [
            ("A", "pod"),
            ("B", "pod!"),
            ("MODE", "fast"),
            ("P_mode", "fast"),
            ("S_token", "hush"),
            ("TOKEN", "hush"),
            ("POD", "web-1"),
            ("APP", "web"),
            ("PORT", "20001"),
            ("PATH", "/bin"),
        ];
        for (name, expected) in table {
            assert_eq!(env.get(name).map(String::as_str), Some(expected), "{name}");
        }
        for (reference, name, message) in [
            ("configMapKeyRef", "no", "configmap \"no\" not found"),
            ("secretKeyRef", "no", "secret \"no\" not found"),
            ("secretKeyRef", "keys", "couldn't find key k in Secret dev/keys"),
        ] {
            let missing =
                json!({"env": [{"name": "X", "valueFrom": {reference: {"name": name, "key": "k"}}}]});
            assert_eq!(run(&image, &missing).unwrap_err(), misconfigured(message));
        }
    }

    #[test]
    fn what_needs_more_than_a_process_is_refused() {
        let table: [(Vec<u8>, &str); 3] = [
            (elf(3), "dynamically linked"),
            (b"#!/bin/sh\n".to_vec(), "is a script"),
            (b"hello".to_vec(), "exec format error"),
        ];
        for (bytes, expected) in table {
            let (_dir, image) = image(&bytes);
            let refusal = run(&image, &json!({})).unwrap_err();
            assert!(refusal.message.contains(expected), "{}", refusal.message);
            assert_eq!(refusal.reason, "CreateContainerError");
        }
        let (_dir, image) = image(&elf(1));
        assert!(
            run(&image, &json!({"command": ["/no"]}))
                .unwrap_err()
                .message
                .contains("no such file")
        );
        assert!(
            run(&image, &json!({"workingDir": "/no"}))
                .unwrap_err()
                .message
                .contains("not in the image")
        );
    }

    #[test]
    fn links_never_lead_out_of_the_image() {
        let (dir, image) = image(&elf(1));
        symlink("/bin/app", dir.path().join("absolute")).unwrap();
        symlink("../../../../bin/app", dir.path().join("upward")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("/etc/passwd", dir.path().join("host")).unwrap();
        let real = dir.path().join("bin/app");
        for (path, expected) in [
            ("/absolute", Some(&real)),
            ("/upward", Some(&real)),
            ("/loop", None),
            ("/host", None),
        ] {
            assert_eq!(
                resolve(&image.rootfs, Path::new("/"), Path::new(path)).as_ref(),
                expected,
                "{path}"
            );
        }
    }
}
