//! The program in the test images: an HTTP server of the standard library alone.
//! Environment: PORT, VERSION, BEHAVIOUR (unhealthy, crash, done, child, sleep).

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

fn main() {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let (port, version, behaviour) = (get("PORT"), get("VERSION"), get("BEHAVIOUR"));
    println!("version {version} starts");
    eprintln!("a word on stderr");
    if behaviour == "crash" {
        eprintln!("crashing as told");
        std::process::exit(3);
    }
    if behaviour == "done" {
        println!("done with {}", get("TASK"));
        return;
    }
    if behaviour == "child" {
        let own = std::env::current_exe().unwrap();
        std::process::Command::new(own).env("BEHAVIOUR", "sleep").spawn().unwrap();
    }
    if behaviour == "sleep" {
        std::thread::sleep(std::time::Duration::from_secs(600));
        return;
    }
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else { continue };
        for line in lines {
            if line.map_or(true, |line| line.is_empty()) {
                break;
            }
        }
        let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let (code, body) = match path.as_str() {
            "/health" if behaviour == "unhealthy" => (500, "not well".to_owned()),
            "/health" => (200, "ok".to_owned()),
            "/version" => (200, version.clone()),
            "/pid" => (200, std::process::id().to_string()),
            "/exit" => {
                println!("asked for /exit");
                std::process::exit(4)
            }
            path if path.starts_with("/env/") => (200, std::env::var(&path[5..]).unwrap_or_default()),
            path => (404, format!("no {path}")),
        };
        if path != "/health" {
            println!("asked for {path}");
        }
        let _ = write!(stream, "HTTP/1.1 {code} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    }
}
