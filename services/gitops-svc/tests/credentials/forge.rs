//! GitHub as far as an App needs it.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::Engine as _;
use rsa::{pkcs1v15, pkcs8::DecodePublicKey as _, sha2::Sha256, signature::Verifier as _};
use serde_json::{Value, json};
use slipway_testbed::{GitHttpServer, ssh_key, tool};

use crate::world::World;

/// As long as GitHub's tokens last.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What GitHub documents of Apps, for the App [`APP`] installed as [`INSTALLATION`] on acme/shop.
#[derive(Debug, Default)]
pub(crate) struct Github {
    public_key_pem: String,
    /// What is given next, and for how long.
    next: Mutex<Vec<(String, Duration)>>,
    /// How many were given.
    given: Mutex<usize>,
}

const APP: u64 = 7;
const INSTALLATION: u64 = 4242;

impl Github {
    /// The JWT of the request: signed by the App, and within the times that GitHub allows.
    fn knows(&self, headers: &HeaderMap) -> Result<(), (StatusCode, Json<Value>)> {
        let refuse = |message: &str| {
            Err((
                StatusCode::UNAUTHORIZED,
                Json(json!({"message": message, "documentation_url": "https://docs.github.com/rest"})),
            ))
        };
        let Some(token) = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        else {
            return refuse("Requires authentication");
        };
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .unwrap()
        };
        let key = rsa::RsaPublicKey::from_public_key_pem(&self.public_key_pem).unwrap();
        let key = pkcs1v15::VerifyingKey::<Sha256>::new(key);
        let signature = pkcs1v15::Signature::try_from(decode(signature).as_slice()).unwrap();
        if key.verify(signed.as_bytes(), &signature).is_err() {
            return refuse("A JSON web token could not be decoded");
        }
        let (header, claims) = signed.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
        assert_eq!(header["alg"], "RS256");
        if claims["iss"].to_string().trim_matches('"') != APP.to_string() {
            return refuse("'Issuer' claim ('iss') must be an Integer");
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(issued <= now && expires > now && expires <= now + 600, "{claims}");
        Ok(())
    }

    pub(crate) fn give(&self, next: &[(&str, Duration)]) {
        let next = next
            .iter()
            .rev()
            .map(|(token, life)| ((*token).to_owned(), *life));
        *self.next.lock().unwrap() = next.collect();
    }

    pub(crate) fn given(&self) -> usize {
        *self.given.lock().unwrap()
    }
}

async fn access_token(
    State(github): State<Arc<Github>>,
    Path(installation): Path<u64>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    github.knows(&headers)?;
    if installation != INSTALLATION {
        return Err((
            StatusCode::NOT_FOUND,
            Json(json!({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"})),
        ));
    }
    // No more than is needed.
    assert_eq!(asked, json!({"repositories": ["shop"]}));
    // Those that ask at the same time would all be here by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (token, life) = {
        let mut next = github.next.lock().unwrap();
        // The last one as often as it is asked for.
        if next.len() > 1 {
            next.remove(0)
        } else {
            next[0].clone()
        }
    };
    *github.given.lock().unwrap() += 1;
    let expires = rfc3339(SystemTime::now() + life);
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "token": token,
            "expires_at": expires,
            "permissions": {"contents": "write", "metadata": "read", "pull_requests": "write"},
            "repository_selection": "selected",
        })),
    ))
}

/// RFC 3339 in seconds, as GitHub writes times.
fn rfc3339(time: SystemTime) -> String {
    chrono::DateTime::from_timestamp(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            .try_into()
            .unwrap(),
        0,
    )
    .unwrap()
    .format("%Y-%m-%dT%H:%M:%SZ")
    .to_string()
}

async fn installation(
    State(github): State<Arc<Github>>,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    github.knows(&headers)?;
    if (owner.as_str(), name.as_str()) != ("acme", "shop") {
        return Err((StatusCode::NOT_FOUND, Json(json!({"message": "Not Found"}))));
    }
    Ok(Json(json!({
        "id": INSTALLATION,
        "account": {"login": "acme", "id": 1, "type": "Organization"},
        "access_tokens_url": format!("https://api.github.com/app/installations/{INSTALLATION}/access_tokens"),
        "app_id": APP,
        "target_type": "Organization",
        "permissions": {"contents": "write"},
        "events": [],
    })))
}

/// GitHub as far as an App needs it: its API, and acme/shop.git by https.
pub(crate) struct Forge {
    pub(crate) github: Arc<Github>,
    api: String,
    pub(crate) git: GitHttpServer,
}

impl Forge {
    pub(crate) async fn start(world: &World) -> Self {
        let key = world.path("app.pem");
        ssh_key(&key, &["-t", "rsa", "-b", "2048", "-m", "PEM"], "").unwrap();
        let public = Command::new(tool("ssh-keygen").unwrap())
            .args(["-e", "-m", "PKCS8", "-f"])
            .arg(&key)
            .output()
            .unwrap();
        let github = Arc::new(Github {
            public_key_pem: String::from_utf8(public.stdout).unwrap(),
            ..Github::default()
        });
        let app = Router::new()
            .route("/app/installations/{id}/access_tokens", post(access_token))
            .route("/repos/{owner}/{name}/installation", get(installation))
            .with_state(Arc::clone(&github));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        std::fs::create_dir(world.path("acme")).unwrap();
        std::os::unix::fs::symlink(world.remote.path(), world.path("acme/shop.git")).unwrap();
        let git = GitHttpServer::start(world.dir.path()).unwrap();
        Self { github, api, git }
    }

    pub(crate) fn repository(&self, world: &World, app: &str) -> String {
        format!(
            "{{url: '{}', ca_file: {}, credentials: {{github_app: {{{app}, private_key_file: {}, api_url: '{}'}}}}}}",
            self.git.url("acme/shop.git"),
            self.git.ca_file().display(),
            world.path("app.pem").display(),
            self.api,
        )
    }
}
