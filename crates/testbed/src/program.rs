//! Small static programs for images `FROM scratch`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{Error, Result, folders, process::run, tool};

/// Compiles one Rust source file into a static program, or returns the one compiled before from the same source, `cfgs`
/// (as for `rustc --cfg`, for example `release="1"`) and compiler.
///
/// Blocks for about a second when it compiles.
///
/// # Errors
/// When there is no compiler, or it fails; with its output.
pub fn static_binary(source: &str, cfgs: &[&str]) -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").map_or_else(|| tool("rustc"), |path| Ok(path.into()))?;
    let version = run(Command::new(&rustc).arg("-vV"))?.stdout;
    let mut hash = Sha256::new();
    // Lengths distinguish "ab","c" from "a","bc".
    for part in [&version[..], source.as_bytes()]
        .into_iter()
        .chain(cfgs.iter().map(|cfg| cfg.as_bytes()))
    {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let folder = cache()?;
    let name = hex::encode(&hash.finalize()[..16]);
    let program = folder.join(&name);
    if program.is_file() {
        return Ok(program);
    }

    // Built under another name and renamed: other test processes may be doing the same.
    let building = folder.join(format!("{name}-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let source_file = building.with_extension("rs");
    fs::write(&source_file, source).map_err(Error::io("cannot write the program's source"))?;
    let mut command = Command::new(rustc);
    command
        .args([
            "--edition=2024",
            "--crate-name=program",
            "--crate-type=bin",
            "--cap-lints=allow",
        ])
        .args([
            "-Copt-level=1",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .args(cfgs.iter().flat_map(|cfg| ["--cfg", cfg]))
        .arg("-o")
        .args([&building, &source_file]);
    let compiled = run(&mut command);
    let _ = fs::remove_file(&source_file);
    compiled?;
    fs::rename(&building, &program).map_err(Error::io("cannot put the program into its cache"))?;
    Ok(program)
}

/// A folder in cargo's target directory, in which this test was built; without one, among the test folders.
fn cache() -> Result<PathBuf> {
    let target = env::current_exe().ok().and_then(|exe| target_of(&exe));
    let folder = match target {
        Some(target) => target.join("testbed"),
        None => folders::base()?.join("programs"),
    };
    fs::create_dir_all(&folder).map_err(Error::io(format!("cannot create {}", folder.display())))?;
    Ok(folder)
}

/// Cargo keeps its cached compiler information at the top of its target directory.
fn target_of(exe: &Path) -> Option<PathBuf> {
    exe.ancestors()
        .skip(1)
        .find(|folder| folder.join(".rustc_info.json").is_file())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"fn main() { println!("{}", if cfg!(release = "2") { "two" } else { "one" }) }"#;

    /// Whether a 64-bit ELF file has a PT_INTERP program header, as every dynamic program does.
    fn asks_for_a_loader(elf: &[u8]) -> bool {
        let short = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
        let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
        let (first, size, count) = (word(32) as usize, short(54), short(56));
        (0..count).any(|header| word(first + header * size) == 3)
    }

    #[test]
    fn a_program_is_static_and_compiled_once() {
        let first = static_binary(SOURCE, &[]).unwrap();
        assert_eq!(run(&mut Command::new(&first)).unwrap().stdout, b"one\n");
        let made = first.metadata().unwrap().modified().unwrap();
        assert_eq!(static_binary(SOURCE, &[]).unwrap(), first);
        assert_eq!(first.metadata().unwrap().modified().unwrap(), made);

        let second = static_binary(SOURCE, &[r#"release="2""#]).unwrap();
        assert_eq!(run(&mut Command::new(&second)).unwrap().stdout, b"two\n");

        assert!(!asks_for_a_loader(&fs::read(&first).unwrap()));
        assert!(asks_for_a_loader(&fs::read(env::current_exe().unwrap()).unwrap()));
    }

    #[test]
    fn a_source_that_does_not_compile_says_why() {
        let error = static_binary("fn main() { nothing() }", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot find function `nothing`"), "{error}");
    }
}
