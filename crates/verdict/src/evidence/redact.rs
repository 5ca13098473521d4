//! Makes log lines and answers fit to be stored and shown: without control characters, and with anything that looks
//! like a secret replaced by [`REDACTED`].
//!
//! The rules match by form (tokens of known makers, JWTs, PEM keys, credentials in URLs, `Authorization`), by name
//! (`password=…`, `"client_secret": "…"`, `--token …`) and by what the pod's own specification reveals without any
//! Secret being read: the names of variables that come from Secrets, and the values of variables with telling names.
//! They prefer redacting a harmless word to leaving a secret, and they do not guarantee anything: programs should not
//! log secrets.

use std::{borrow::Cow, sync::LazyLock};

use k8s_openapi::api::core::v1::Container;
use regex::{Captures, Regex};

/// Replaces a secret.
pub const REDACTED: &str = "[redacted]";

/// A known value that is shorter is not searched for: it would occur in innocent words.
const SHORTEST_VALUE: usize = 6;
/// The maximum number of names and values of one container that are searched for.
const MAX_KNOWN: usize = 64;

/// Names whose values are secrets, also as part of a longer name.
const NAMES: &str = r"passwords?|passwd|passphrase|pwd|secret|token|api[_.-]?key|access[_.-]?key|account[_.-]?key|private[_.-]?key|signing[_.-]?key|encryption[_.-]?key|credentials?|connection[_.-]?string|cookie|session[_.-]?id|jsessionid";

/// What follows such a name in prose and is not a secret.
const PROSE: [&str; 52] = [
    "a",
    "an",
    "and",
    "any",
    "at",
    "authentication",
    "bad",
    "been",
    "but",
    "cannot",
    "connection",
    "context",
    "could",
    "couldn't",
    "denied",
    "does",
    "empty",
    "eof",
    "error",
    "expected",
    "expired",
    "failed",
    "false",
    "field",
    "for",
    "forbidden",
    "get",
    "has",
    "http",
    "in",
    "incorrect",
    "invalid",
    "is",
    "malformed",
    "missing",
    "must",
    "nil",
    "no",
    "none",
    "not",
    "null",
    "of",
    "open",
    "permission",
    "required",
    "rpc",
    "the",
    "true",
    "unauthorized",
    "unexpected",
    "unknown",
    "wrong",
];

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant of this file")
}

macro_rules! patterns {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* static $name: LazyLock<Regex> = LazyLock::new(|| pattern(&$text));)*
    };
}

patterns! {
    /// Colours and the like, window titles.
    ESCAPES = r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]";
    /// A private key in one text, also with its line ends escaped as in JSON.
    PEM = r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|$)";
    /// `Authorization: Bearer …`, in headers, JSON, and as Go prints a map.
    AUTHORIZATION = r#"(?i)\b((?:proxy-)?authorization\\?["']?\s*[:=]\s*\[?\\?["']?)([^"'\]\\\r\n]+)"#;
    /// Cookies: all of them, to the end of the header.
    COOKIE = r#"(?i)\b((?:set-)?cookie\\?["']?\s*[:=]\s*\[?\\?["']?)([^"'\]\\\r\n]+)"#;
    SCHEME = r"(?i)\b(bearer|basic)(\s+)([a-z0-9._~+/=-]{8,})";
    /// `name = value` in all its forms.
    NAMED = format!(
        r#"(?i)([\w.-]*(?:{NAMES})[\w.-]*\\?["']?\s*(?:=>|:=|==|=|:)\s*)(\\"[^"\\]*\\"|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`[^`]*`?|[^\s,;&"'`{{}}\[\]()<>]+)"#
    );
    /// `--password value`, also as two members of a list.
    FLAG = format!(r#"(?i)(\s|^|["'])(--?[\w-]*(?:{NAMES})[\w-]*["']?,?\s+["']?)([^\s"'\[-][^\s"',\]]*)"#);
    /// Signatures in pre-signed URLs.
    QUERY = r#"(?i)([?&](?:sig|signature|x-amz-signature|x-amz-credential|x-goog-signature|x-goog-credential|key|code|auth)=)[^&\s"'<>\[]+"#;
    USERINFO = r#"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#"'<>\[]+@"#;
    /// In the form of Go's MySQL driver: `user:password@tcp(host)`.
    DSN = r#"([\w.-]+:)[^\s"']+(@(?:tcp|unix)\()"#;
    /// Tokens that can be recognised by their issuer's prefix: AWS, JWT, GitHub, GitLab, Slack, Stripe, Google, OpenAI
    /// and the like, npm, SendGrid, Vault, DigitalOcean, Docker, PyPI, age.
    TOKENS = [
        r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}\b",
        r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*",
        r"\bgh[pousr]_[A-Za-z0-9]{20,}",
        r"\bgithub_pat_[A-Za-z0-9_]{20,}",
        r"\bgl[a-z]{2,5}-[A-Za-z0-9_-]{20,}",
        r"\bx(?:ox[a-z]|app|oxe\.xox[a-z])-[A-Za-z0-9-]{10,}",
        r"(?i)https://hooks\.slack\.com/[^\s\x22'<>]+",
        r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}",
        r"\bwhsec_[A-Za-z0-9+/=]{16,}",
        r"\bAIza[A-Za-z0-9_-]{35}",
        r"\bya29\.[A-Za-z0-9_-]{20,}",
        r"\bGOCSPX-[A-Za-z0-9_-]{20,}",
        r"\bsk-[A-Za-z0-9_-]{20,}",
        r"\bnpm_[A-Za-z0-9]{30,}",
        r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
        r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",
        r"\bdo[opr]_v1_[a-f0-9]{40,}",
        r"\bdckr_pat_[A-Za-z0-9_-]{20,}",
        r"\bpypi-[A-Za-z0-9_-]{40,}",
        r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}",
    ]
    .join("|");
    SECRET_NAME = format!("(?i){NAMES}|auth|dsn|(?:^|_)key(?:_|$)");
    /// The user and password of a URL.
    PASSWORD = r"(?i)^[a-z][a-z0-9+.-]*://[^\s/?#:@]*:([^\s/?#]+)@";
    BEGIN = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----";
    END = r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----";
    /// A line of a key's body.
    BASE64 = r"^\s*(?:[\w:.-]+ )?[A-Za-z0-9+/=]{16,}\s*$";
}

/// Replaces what looks like a secret, by form and by name.
pub fn redact(text: &str) -> String {
    Redactor::default().text(text)
}

/// Without terminal control: escape sequences, control characters other than the tab, and marks that reorder or hide
/// text.
pub fn clean(line: &str) -> String {
    ESCAPES
        .replace_all(line, "")
        .chars()
        .filter(|c| (!c.is_control() || *c == '\t') && !hides(*c))
        .collect()
}

/// Zero-width and bidirectional format characters (Unicode, general category Cf, those of them that mislead readers).
fn hides(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Redacts the output of one container, using its specification.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// Variables that come from Secrets: `NAME=value` and `NAME: value`.
    names: Option<Regex>,
    /// Values that the specification itself contains under telltale names, longest first.
    values: Vec<String>,
}

impl Redactor {
    /// For a container's output. No Secret is read: names come from references, values from what is written in the
    /// clear.
    pub fn of(container: &Container) -> Self {
        let variables = || container.env.iter().flatten();
        let from_secret = variables()
            .filter(|one| {
                one.value_from
                    .as_ref()
                    .is_some_and(|from| from.secret_key_ref.is_some())
            })
            .map(|one| one.name.as_str());
        let open = variables().filter_map(|one| Some((one.name.as_str(), one.value.as_deref()?)));
        Self::new(from_secret, open)
    }

    /// From the names of variables whose values are secret, and from variables with their values, of which those are
    /// remembered that are secret by name or contain a password in a URL.
    pub fn new<'a>(
        secret: impl IntoIterator<Item = &'a str>,
        open: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let names: Vec<String> = secret
            .into_iter()
            .filter(|name| !name.is_empty() && name.len() <= 200)
            .take(MAX_KNOWN)
            .map(regex::escape)
            .collect();
        let names = (!names.is_empty()).then(|| {
            let names = names.join("|");
            Regex::new(&format!(
                r#"\b((?:{names})\\?["']?\s*(?:=>|:=|=|:)\s*)(\\"[^"\\]*\\"|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,;"'\[]+)"#
            ))
        });
        let mut values: Vec<String> = open
            .into_iter()
            .flat_map(|(name, value)| {
                let whole = SECRET_NAME.is_match(name).then_some(value);
                let password = PASSWORD
                    .captures(value)
                    .and_then(|found| found.get(1))
                    .map(|found| found.as_str());
                [whole, password].into_iter().flatten()
            })
            // `$(OTHER)` refers to another variable.
            .filter(|value| value.len() >= SHORTEST_VALUE && !value.starts_with("$(") && !is_prose(value))
            .take(MAX_KNOWN)
            .map(str::to_owned)
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self {
            names: names.and_then(Result::ok),
            values,
        }
    }

    /// Log lines, oldest first: cleaned, redacted and then cut to `longest` characters each. A private key that spans
    /// several lines is removed as a whole, also if its beginning was not read.
    pub fn lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>, longest: usize) -> Vec<String> {
        let lines: Vec<String> = lines.into_iter().map(clean).collect();
        let mut secret = vec![false; lines.len()];
        let mut within = false;
        for (index, line) in lines.iter().enumerate() {
            let begins = BEGIN.find_iter(line).last().map(|found| found.start());
            let ends = END.find_iter(line).last().map(|found| found.start());
            if ends.is_some() && begins.is_none() && !within {
                // The tail began within a key.
                let body = lines[..index]
                    .iter()
                    .rposition(|line| !BASE64.is_match(line))
                    .map_or(0, |last| last + 1);
                secret[body..=index].fill(true);
            }
            secret[index] |= within;
            within = match (begins, ends) {
                (Some(begins), Some(ends)) => begins > ends,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => within,
            };
        }
        let redacted = lines.iter().zip(secret).map(|(line, secret)| match secret {
            true => REDACTED.to_owned(),
            false => self.text(line).chars().take(longest).collect(),
        });
        redacted.collect()
    }

    /// One text.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), REDACTED);
            }
        }
        let keep_first = |found: &Captures<'_>| kept(found, &found[1], &found[2]);
        let word = |found: &Captures<'_>| match is_prose(&found[2]) {
            true => found[0].to_owned(),
            false => kept(found, &found[1], &found[2]),
        };
        let mut text = Cow::Owned(text);
        apply(&mut text, &PEM, |_| REDACTED.to_owned());
        apply(&mut text, &AUTHORIZATION, keep_first);
        apply(&mut text, &COOKIE, keep_first);
        apply(&mut text, &SCHEME, |found| match random(&found[3]) {
            true => format!("{}{}{REDACTED}", &found[1], &found[2]),
            false => found[0].to_owned(),
        });
        apply(&mut text, &TOKENS, |_| REDACTED.to_owned());
        apply(&mut text, &USERINFO, |found| format!("{}{REDACTED}@", &found[1]));
        apply(&mut text, &DSN, |found| {
            format!("{}{REDACTED}{}", &found[1], &found[2])
        });
        apply(&mut text, &QUERY, |found| format!("{}{REDACTED}", &found[1]));
        if let Some(names) = &self.names {
            apply(&mut text, names, keep_first);
        }
        apply(&mut text, &NAMED, word);
        apply(&mut text, &FLAG, |found| match is_prose(&found[3]) {
            true => found[0].to_owned(),
            false => format!("{}{}{REDACTED}", &found[1], &found[2]),
        });
        text.into_owned()
    }
}

fn apply(text: &mut Cow<'_, str>, pattern: &Regex, by: impl Fn(&Captures<'_>) -> String) {
    if let Cow::Owned(replaced) = pattern.replace_all(text, by) {
        *text = Cow::Owned(replaced);
    }
}

/// The name, and the redacted value in the same quotes.
fn kept(found: &Captures<'_>, name: &str, value: &str) -> String {
    if value.contains("[redacted") || value.starts_with("redacted") {
        return found[0].to_owned();
    }
    for quote in ["\\\"", "\"", "'", "`"] {
        if let Some(rest) = value.strip_prefix(quote) {
            if rest.strip_suffix(quote).unwrap_or(rest).is_empty() {
                return found[0].to_owned();
            }
            let end = if rest.ends_with(quote) { quote } else { "" };
            return format!("{name}{quote}{REDACTED}{end}");
        }
    }
    format!("{name}{REDACTED}")
}

/// A word of a sentence.
fn is_prose(value: &str) -> bool {
    let word = value.trim_end_matches(['.', ':', '!', '?']).to_ascii_lowercase();
    word.is_empty() || PROSE.binary_search(&word.as_str()).is_ok()
}

/// Not a word, as in `basic authentication`.
fn random(value: &str) -> bool {
    let word = value.trim_end_matches('.');
    word.len() >= 24
        || word.bytes().any(|b| b.is_ascii_digit() || b"_~+/=".contains(&b))
        || word.bytes().skip(1).any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;
    use serde_json::json;

    use super::{PROSE, REDACTED, Redactor, clean, redact};

    #[test]
    fn secrets_are_replaced() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        for (text, left) in [
            // By name.
            ("password=hunter2", "password=[redacted]"),
            ("PASSWORD: hunter2 and more", "PASSWORD: [redacted] and more"),
            ("password: swordfish", "password: [redacted]"),
            (
                "DB_PASSWORD=hunter2 DB_HOST=db",
                "DB_PASSWORD=[redacted] DB_HOST=db",
            ),
            ("db.password = 'hunter 2'", "db.password = '[redacted]'"),
            (
                r#"{"password": "hun\"ter2", "user": "bob"}"#,
                r#"{"password": "[redacted]", "user": "bob"}"#,
            ),
            (
                r#"{"clientSecret":"abc","x":1}"#,
                r#"{"clientSecret":"[redacted]","x":1}"#,
            ),
            (
                r#"msg="{\"token\":\"abc\"}""#,
                r#"msg="{\"token\":\"[redacted]\"}""#,
            ),
            ("token: abc123", "token: [redacted]"),
            (
                "api_key=abc, apiKey=def; api-key: ghi",
                "api_key=[redacted], apiKey=[redacted]; api-key: [redacted]",
            ),
            ("X-Api-Key: abc", "X-Api-Key: [redacted]"),
            (
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG",
                "aws_secret_access_key = [redacted]",
            ),
            (":password => \"abc\"", ":password => \"[redacted]\""),
            ("passwd:=abc", "passwd:=[redacted]"),
            (
                "Server=db;Password=abc;Database=shop",
                "Server=db;Password=[redacted];Database=shop",
            ),
            ("/login?token=abc&next=1", "/login?token=[redacted]&next=1"),
            (
                "run --password hunter2 --verbose",
                "run --password [redacted] --verbose",
            ),
            (
                r#"["--db-password", "hunter2"]"#,
                r#"["--db-password", "[redacted]"]"#,
            ),
            ("--token=abc", "--token=[redacted]"),
            // Headers.
            ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
            ("authorization: Basic dXNlcjpwYXNz", "authorization: [redacted]"),
            (
                r#"{"Authorization":"Bearer abc","status":401}"#,
                r#"{"Authorization":"[redacted]","status":401}"#,
            ),
            (
                "map[Authorization:[Bearer abc] Accept:[*/*]]",
                "map[Authorization:[[redacted]] Accept:[*/*]]",
            ),
            (
                "Proxy-Authorization: Digest username=\"bob\"",
                "Proxy-Authorization: [redacted]\"bob\"",
            ),
            ("Cookie: a=b; c=d", "Cookie: [redacted]"),
            ("set-cookie: session=abc; Path=/", "set-cookie: [redacted]"),
            (
                "sent Bearer abcdef123456 to shop",
                "sent Bearer [redacted] to shop",
            ),
            ("curl -H 'X: basic dXNlcjpwYXNz'", "curl -H 'X: basic [redacted]'"),
            // URLs.
            (
                "postgres://bob:hunter2@db:5432/shop",
                "postgres://[redacted]@db:5432/shop",
            ),
            ("redis://:hunter2@redis", "redis://[redacted]@redis"),
            (
                "https://token@github.com/x.git",
                "https://[redacted]@github.com/x.git",
            ),
            ("amqp://a:p@ss@mq/", "amqp://[redacted]@mq/"),
            (
                "shop:hunter2@tcp(db:3306)/shop",
                "shop:[redacted]@tcp(db:3306)/shop",
            ),
            ("/f?X-Amz-Signature=abc&x=1", "/f?X-Amz-Signature=[redacted]&x=1"),
            ("https://hooks.slack.com/services/T0/B0/xyz", "[redacted]"),
            // Tokens by their makers' marks.
            ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted] used"),
            (&format!("got {jwt}!"), "got [redacted]!"),
            ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[redacted]"),
            ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv", "[redacted]"),
            ("glpat-abcdefghijklmnopqrst", "[redacted]"),
            ("xoxb-1234567890-abcdefghij", "[redacted]"),
            ("xapp-1-A0-123-abcdef", "[redacted]"),
            ("sk_live_abcdefghij0123456789", "[redacted]"),
            ("AIzaSyA-abcdefghijklmnopqrstuvwxyz01234", "[redacted]"),
            ("hvs.abcdefghijklmnopqrstuvwx", "[redacted]"),
            // Keys.
            (
                "key: -----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----\\n.",
                "key: [redacted]\\n.",
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb", "[redacted]"),
        ] {
            assert_eq!(redact(text), left);
        }
    }

    #[test]
    fn what_people_need_to_read_stays() {
        for text in [
            "",
            "cannot open the database: connection refused",
            "failed to fetch oauth token: unexpected status: 401 Unauthorized",
            "Failed to pull image \"registry:5000/app@sha256:0123456789abcdef\": not found",
            "docker://registry:5000/app@sha256:0123456789abcdef",
            "MountVolume.SetUp failed for volume \"config\" : secret \"shop-db\" not found",
            "Error: couldn't find key password in Secret shop/shop-db",
            "basic authentication failed, bearer authentication required.",
            "password authentication failed for user \"shop\"",
            "FATAL: password is missing",
            "invalid token: expired",
            "SyntaxError: Unexpected token } in JSON at position 4",
            "token: \"\"",
            "pods \"shop-1\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
            "GET http://shop:8080/health?deep=1 503 mail bob@shop.example",
            "listening on [::]:8080, commit 5f2c9e1d3b7a4c6e8f0a1b2c3d4e5f6a7b8c9d0e",
            "image has digest 0123456789abcdef0123456789abcdef",
            "-----BEGIN CERTIFICATE-----",
            "java.lang.IllegalStateException: tokenizer: bad",
        ] {
            assert_eq!(redact(text), text);
        }
        assert!(PROSE.is_sorted(), "it is searched by halves");
    }

    #[test]
    fn a_pod_tells_what_is_secret_without_its_secrets() {
        let container: Container = serde_json::from_value(json!({
            "name": "shop",
            "env": [
                {"name": "SHOP_LICENCE", "valueFrom": {"secretKeyRef": {"name": "licence", "key": "text"}}},
                {"name": "MODE", "value": "production"},
                {"name": "ADMIN_PASSWORD", "value": "correct horse"},
                {"name": "DATABASE", "value": "postgres://shop:s3cr3tpw@db/shop"},
                {"name": "SHORT_TOKEN", "value": "on"},
                {"name": "OTHER_TOKEN", "value": "$(SHOP_LICENCE)"},
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
        }))
        .unwrap();
        let redactor = Redactor::of(&container);
        for (text, left) in [
            (
                "SHOP_LICENCE=abc MODE=production",
                "SHOP_LICENCE=[redacted] MODE=production",
            ),
            (
                "env {\"SHOP_LICENCE\": \"a b\"}",
                "env {\"SHOP_LICENCE\": \"[redacted]\"}",
            ),
            ("MY_SHOP_LICENCE_X=abc", "MY_SHOP_LICENCE_X=abc"),
            (
                "login as admin with correct horse failed",
                "login as admin with [redacted] failed",
            ),
            ("connecting with s3cr3tpw", "connecting with [redacted]"),
            ("turned on in production", "turned on in production"),
        ] {
            assert_eq!(redactor.text(text), left);
        }
        assert_eq!(
            redact("SHOP_LICENCE=abc"),
            "SHOP_LICENCE=abc",
            "known from the pod alone"
        );
    }

    #[test]
    fn keys_across_lines_go_as_a_whole() {
        let lines = |text: &'static str| Redactor::default().lines(text.lines(), 500);
        let key = "before\n-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nabc=\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(
            lines(key),
            ["before", REDACTED, REDACTED, REDACTED, REDACTED, "after"]
        );
        let cut_off = "MIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(lines(cut_off), [REDACTED, REDACTED, REDACTED, "after"]);
        let unended = "before\n-----BEGIN EC PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG";
        assert_eq!(lines(unended), ["before", REDACTED, REDACTED]);
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END CERTIFICATE-----";
        assert_eq!(lines(certificate), certificate.lines().collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_cleaned_then_redacted_then_cut() {
        for (line, left) in [
            ("a\u{1b}[31mred\u{1b}[0m\tb\r", "ared\tb"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;https://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}Pq#0\u{1b}\\x", "x"),
            ("a\u{0}b\u{8}c\u{9b}31md", "abc31md"),
            ("evil\u{202e}txt.exe\u{200b}", "eviltxt.exe"),
            ("schön 日本", "schön 日本"),
        ] {
            assert_eq!(clean(line), left);
        }
        let hidden = ["pass\u{1b}[0mword=hun\u{0}ter2"];
        assert_eq!(Redactor::default().lines(hidden, 500), ["password=[redacted]"]);
        // A token that the cut would have made unrecognisable.
        let long = format!("{} ghp_abcdefghijklmnopqrstuvwxyz0123456789", "x".repeat(20));
        assert_eq!(
            Redactor::default().lines([long.as_str()], 30),
            [format!("{} [redacted", "x".repeat(20))
                .chars()
                .take(30)
                .collect::<String>()]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_twice_is_once(text in "\\PC{0,200}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }

        #[test]
        fn no_password_stays_in_any_usual_form(
            name in prop_oneof![Just("password"), Just("DB_PASSWORD"), Just("api_key"), Just("clientSecret"), Just("AUTH_TOKEN")],
            join in prop_oneof![Just("="), Just(": "), Just(" = "), Just("\": \""), Just(":")],
            value in "[A-Za-z0-9!$%^*_+/.-]{8,40}",
            before in "[a-z ]{0,20}",
        ) {
            let text = format!("{before} {name}{join}{value} end");
            prop_assert!(!redact(&text).contains(&value), "{}", redact(&text));
        }

        #[test]
        fn lines_are_free_of_control(text in "(?s).{0,300}") {
            for line in Redactor::default().lines(text.split('\n'), 100) {
                prop_assert!(line.chars().all(|c| !c.is_control() || c == '\t'));
                prop_assert!(line.chars().count() <= 100);
            }
        }
    }
}
