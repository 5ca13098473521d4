//! git over https: `git http-backend` behind TLS and a token, as git hosts serve it, with optional misbehaviour.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, sync::oneshot};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::{Error, Result, TestDir, process::run, tool};

/// What the server answers instead of git's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// This status for every request, and a line of text.
    Status(u16),
    /// 301 to the same path at another base, such as `https://127.0.0.1:1234`.
    Redirect(String),
    /// Fetches are served; a push is answered 403, as hosts do when the token may only read.
    ReadOnly,
}

/// One request that the server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// User and password of its `Authorization: Basic …`, when it had one.
    pub basic: Option<(String, String)>,
    /// The status that it was answered with.
    pub status: u16,
}

/// Serves the bare repositories of a folder on 127.0.0.1; ends when dropped. It has its own thread, so that tests may
/// block.
#[derive(Debug)]
pub struct GitHttpServer {
    address: SocketAddr,
    ca_file: PathBuf,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: TestDir,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    backend: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<String>,
    always: Option<HttpAnswer>,
    next: VecDeque<HttpAnswer>,
    requests: Vec<HttpRequest>,
}

impl GitHttpServer {
    /// Serves what is below `root`, to everyone, until [`GitHttpServer::require_token`].
    ///
    /// # Errors
    /// When git is missing, or there is no free port.
    pub fn start(root: impl Into<PathBuf>) -> Result<Self> {
        let folder = TestDir::new("git-http")?;
        let ca_file = folder.path().join("ca.pem");
        let acceptor = certificate(&ca_file).map_err(Error::io("cannot make a certificate"))?;
        let exec_path = run(std::process::Command::new(tool("git")?).arg("--exec-path"))?.stdout;
        let backend = Path::new(String::from_utf8_lossy(&exec_path).trim()).join("git-http-backend");
        if !backend.is_file() {
            return Err(Error::MissingTool("git-http-backend".to_owned()));
        }
        let shared = Arc::new(Shared {
            root: root.into(),
            backend,
            state: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(Error::io("cannot listen on 127.0.0.1"))?;
        let address = listener
            .local_addr()
            .map_err(Error::io("cannot listen on 127.0.0.1"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("cannot start a runtime"))?;
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, acceptor, served) => {}
                    _ = stopped => {}
                }
            });
            // The connections end with it, and their child processes with them.
        });
        Ok(Self {
            address,
            ca_file,
            shared,
            stop: Some(stop),
            thread: Some(thread),
            _folder: folder,
        })
    }

    /// `https://127.0.0.1:<port>/<path>`, where the path is one below the root.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    /// The certificate that a client has to trust, in PEM form.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// From now on only this password is accepted, with any user; others get a 401.
    pub fn require_token(&self, token: impl Into<String>) {
        self.state(|state| state.token = Some(token.into()));
    }

    /// From now on, until [`GitHttpServer::behave`].
    pub fn misbehave(&self, answer: HttpAnswer) {
        self.state(|state| state.always = Some(answer));
    }

    /// For the next requests, one answer each, before anything else.
    pub fn misbehave_next(&self, answers: impl IntoIterator<Item = HttpAnswer>) {
        self.state(|state| state.next.extend(answers));
    }

    /// From now on git answers.
    pub fn behave(&self) {
        self.state(|state| {
            state.always = None;
            state.next.clear();
        });
    }

    /// The requests that were answered so far, in order.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.state(|state| state.requests.clone())
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for GitHttpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A certificate for 127.0.0.1, written to a file for clients to trust.
fn certificate(ca_file: &Path) -> io::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .map_err(io::Error::other)?;
    fs::write(ca_file, made.cert.pem())?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A client that does not trust us hangs up here.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            // So does one that has its response.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let method = request.method().to_string();
        let path = request.uri().to_string();
        let basic = basic(&request);
        let answer = match self.refusal(&path, basic.as_ref()) {
            Some(answer) => answer,
            None => match self.git(request, basic.is_some()).await {
                Ok(answer) => answer,
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            },
        };
        let status = answer.status().as_u16();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(HttpRequest {
            method,
            path,
            basic,
            status,
        });
        answer
    }

    fn refusal(&self, path: &str, basic: Option<&(String, String)>) -> Option<Answer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = state.next.pop_front().or_else(|| state.always.clone());
        match wanted {
            Some(HttpAnswer::Status(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Some(plain(status, status.canonical_reason().unwrap_or_default()));
            }
            Some(HttpAnswer::Redirect(base)) => {
                let mut answer = plain(StatusCode::MOVED_PERMANENTLY, "elsewhere");
                if let Ok(place) = format!("{base}{path}").parse() {
                    answer.headers_mut().insert(header::LOCATION, place);
                }
                return Some(answer);
            }
            _ => {}
        }
        if let Some(token) = &state.token
            && basic.is_none_or(|(_, password)| password != token)
        {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "Invalid username or token.");
            answer.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Basic realm=\"test\""),
            );
            return Some(answer);
        }
        if wanted == Some(HttpAnswer::ReadOnly) && path.contains("git-receive-pack") {
            return Some(plain(
                StatusCode::FORBIDDEN,
                "Write access to repository not granted.",
            ));
        }
        None
    }

    /// The request as CGI (RFC 3875); see git-http-backend(1).
    async fn git(&self, request: Request<Incoming>, known: bool) -> io::Result<Answer> {
        let (parts, body) = request.into_parts();
        let text = |name: header::HeaderName| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let mut command = Command::new(&self.backend);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            // As git hosts have it.
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "uploadpack.allowFilter")
            .env("GIT_CONFIG_VALUE_0", "true")
            .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
            .env("GIT_CONFIG_VALUE_1", "true")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("PATH_INFO", parts.uri.path())
            .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
            .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
            .env(
                "GIT_PROTOCOL",
                text(header::HeaderName::from_static("git-protocol")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if known {
            // Without a user git does not accept a push.
            command.env("REMOTE_USER", "robot");
        }
        let mut child = command.spawn()?;
        let _group = Group(child.id());
        let input = child.stdin.take();
        let feed = async {
            // Collected, since git would otherwise wait for the CONTENT_LENGTH of an endless stream.
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            if let Some(mut input) = input {
                // git may not want to read any more.
                let _ = input.write_all(&body).await;
            }
            Ok::<_, io::Error>(())
        };
        let (fed, output) = tokio::join!(feed, child.wait_with_output());
        fed?;
        cgi(&output?.stdout)
    }
}

/// The output of a CGI program: headers, an empty line, the body.
fn cgi(output: &[u8]) -> io::Result<Answer> {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| io::Error::other("git http-backend wrote no headers"))?;
    let mut answer = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        answer = if name.eq_ignore_ascii_case("status") {
            let code = value.split_whitespace().next().unwrap_or_default();
            answer.status(code)
        } else {
            answer.header(name, value.trim())
        };
    }
    answer
        .body(Full::from(output[end + 4..].to_vec()))
        .map_err(io::Error::other)
}

fn basic(request: &Request<Incoming>) -> Option<(String, String)> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let pair = base64::engine::general_purpose::STANDARD
        .decode(value.strip_prefix("Basic ")?)
        .ok()?;
    let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// git shows a plain text to its user, each line after `remote: `.
fn plain(status: StatusCode, words: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{words}\n").into_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    answer
}

/// Hooks that are still running when no one waits for them any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GitRepo;

    fn ls_remote(server: &GitHttpServer, url: &str) -> Result<String> {
        let mut command = std::process::Command::new(tool("git").unwrap());
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSL_CAINFO", server.ca_file())
            .args(["ls-remote", url]);
        Ok(String::from_utf8_lossy(&run(&mut command)?.stdout).into_owned())
    }

    #[test]
    fn it_serves_those_who_know_the_token_and_misbehaves_when_told_to() {
        let folder = TestDir::new("git-http-root").unwrap();
        let repo = GitRepo::bare(folder.path().join("a/b.git")).unwrap();
        let head = repo.commit("main", "one", &[("a", b"")]).unwrap();
        let server = GitHttpServer::start(folder.path()).unwrap();
        let url = server.url("a/b.git");
        assert!(ls_remote(&server, &url).unwrap().contains(&head));

        server.require_token("secret");
        let error = ls_remote(&server, &url).unwrap_err().to_string();
        assert!(error.contains("could not read Username"), "{error}");
        let with = |token: &str| url.replace("https://", &format!("https://user:{token}@"));
        assert!(ls_remote(&server, &with("wrong")).is_err());
        assert!(ls_remote(&server, &with("secret")).unwrap().contains(&head));
        let last = server.requests().pop().unwrap();
        assert_eq!(last.basic, Some(("user".to_owned(), "secret".to_owned())));

        server.misbehave_next([HttpAnswer::Status(503)]);
        let error = ls_remote(&server, &with("secret")).unwrap_err().to_string();
        assert!(error.contains("503"), "{error}");
        server.misbehave(HttpAnswer::Status(404));
        let error = ls_remote(&server, &with("secret")).unwrap_err().to_string();
        assert!(error.contains("not found"), "{error}");
        server.behave();
        assert!(ls_remote(&server, &with("secret")).is_ok());
    }
}
