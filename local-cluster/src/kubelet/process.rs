//! A container's process: started through the shim, signalled through a pipe, its output copied to the log.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::kubelet::logs::Writer;
use crate::shim::{self, Program};

/// How long output may still come after the process ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the shim may take to show that it works.
const CHECK_TIME: Duration = Duration::from_secs(20);

/// A running process. When it is dropped its pipe closes, and the shim kills everything.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    log: Writer,
    copies: Vec<JoinHandle<()>>,
}

impl Process {
    pub(crate) async fn start(shim: &Path, program: &Program, log: Writer) -> io::Result<Self> {
        let mut child = Command::new(shim)
            .arg(shim::SHIM)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the cluster, which then stops its pods in its own way.
            .process_group(0)
            .spawn()?;
        let missing = || io::Error::other("the shim has no pipes");
        let mut orders = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let mut line = serde_json::to_vec(program)?;
        line.push(b'\n');
        orders.write_all(&line).await?;
        orders.flush().await?;
        let copies = vec![
            tokio::spawn(log.clone().copy("stdout", stdout)),
            tokio::spawn(log.clone().copy("stderr", stderr)),
        ];
        Ok(Self {
            child,
            orders,
            log,
            copies,
        })
    }

    /// Waits for the end. Returns the exit code, or 128 + the signal's number if a signal ended it.
    pub(crate) async fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let code = match self.child.wait().await {
            Ok(status) => status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            Err(error) => {
                tracing::warn!(%error, "a container's end was not seen");
                255
            }
        };
        for mut copy in self.copies.drain(..) {
            if timeout(LAST_WORDS, &mut copy).await.is_err() {
                copy.abort();
            }
        }
        self.log.close();
        code
    }

    pub(crate) async fn order(&mut self, order: u8) {
        let sent = async {
            self.orders.write_all(&[order]).await?;
            self.orders.flush().await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "the container ended before the order came");
        }
    }
}

/// Makes sure that the executable is one that becomes a shim.
///
/// # Errors
/// When it does not answer as one.
pub(crate) async fn check_shim(path: &Path) -> Result<(), String> {
    let output = Command::new(path)
        .args([shim::SHIM, shim::CHECK])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(CHECK_TIME, output)
        .await
        .map_err(|_| "it did not answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&output.stdout);
    if answer.trim() == shim::CHECK_ANSWER {
        Ok(())
    } else {
        Err("it is not a pod shim".to_owned())
    }
}
