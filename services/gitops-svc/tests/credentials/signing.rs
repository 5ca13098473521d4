//! Commits that prove by whom they are.

use std::process::Command;

use slipway_proto::gitops::v1::change::Status;
use slipway_testbed::{ssh_key, tool};

use crate::{
    change, config, secret_file,
    world::{World, assert_status, start_with},
};

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_signed_and_git_says_so() {
    let world = World::new("signing", &["api"]);
    let allowed = world.path("allowed-signers");
    secret_file(&world.path("passphrase"), "open sesame\n");
    let git = |arguments: &[&str]| {
        let output = Command::new(tool("git").unwrap())
            .arg("--git-dir")
            .arg(world.remote.path())
            .args(["-c", "gpg.format=ssh", "-c"])
            .arg(format!("gpg.ssh.allowedSignersFile={}", allowed.display()))
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    for (name, kind, passphrase, words) in [
        ("ed25519", &["-t", "ed25519"][..], "", "ED25519"),
        ("ecdsa", &["-t", "ecdsa", "-b", "256"], "", "ECDSA"),
        ("rsa", &["-t", "rsa", "-b", "3072"], "", "RSA"),
        ("locked", &["-t", "ed25519"], "open sesame", "ED25519"),
    ] {
        let key = world.path(name);
        ssh_key(&key, kind, passphrase).unwrap();
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        std::fs::write(&allowed, format!("robot@example.com namespaces=\"git\" {public}")).unwrap();
        let signing = if passphrase.is_empty() {
            format!("{{ssh_key_file: {}}}", key.display())
        } else {
            format!(
                "{{ssh_key_file: {}, passphrase_file: {}}}",
                key.display(),
                world.path("passphrase").display()
            )
        };
        // By the service's key, and by the repository's own.
        let url = world.remote.path().display();
        let text = if name == "ecdsa" {
            config(
                &world,
                &format!("{{url: {url}}}"),
                &format!("signing: {signing}\n"),
            )
        } else {
            config(&world, &format!("{{url: {url}, signing: {signing}}}"), "")
        };
        let running = start_with(&text).await.unwrap();
        let pushed = change(&running, name).await;
        assert_status(&pushed, Status::Pushed);
        running.stop().await;

        let (_, log) = git(&["log", "-1", "--show-signature", "main"]);
        let good = format!("Good \"git\" signature for robot@example.com with {words} key");
        assert!(log.contains(&good), "{log}");
        assert!(log.contains(&pushed.commit), "{log}");
        assert!(git(&["verify-commit", "main"]).0);

        // Somebody else's key, though the same name.
        ssh_key(&world.path(&format!("{name}-other")), &["-t", "ed25519"], "").unwrap();
        let other = std::fs::read_to_string(world.path(&format!("{name}-other.pub"))).unwrap();
        std::fs::write(&allowed, format!("robot@example.com {other}")).unwrap();
        assert!(!git(&["verify-commit", "main"]).0);
    }
    let (sound, words) = git(&["fsck", "--strict"]);
    assert!(sound, "{words}");
}
