//! No server outlives the test process that started it, however that ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use slipway_testbed::{Redis, Registry, postgres};

/// Not a test: the process that the test below kills. It says its servers' ports and waits to be killed.
#[tokio::test]
#[ignore = "started by servers_die_with_a_killed_process"]
async fn victim() {
    let redis = Redis::start().await.unwrap();
    let registry = Registry::start().await.unwrap();
    let registry_port = registry.address().rsplit(':').next().unwrap().to_owned();
    // On a line of its own, whatever the test harness wrote before.
    println!(
        "\nPORTS {} {} {registry_port}",
        postgres().await.unwrap().port(),
        redis.port()
    );
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn servers_die_with_a_killed_process() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "victim"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ports = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| Some(line.unwrap().strip_prefix("PORTS ")?.to_owned()))
        .expect("the victim ended before its servers were up");
    let addresses: Vec<SocketAddr> = ports
        .split(' ')
        .map(|port| (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into())
        .collect();
    assert_eq!(addresses.len(), 3);
    for address in &addresses {
        TcpStream::connect(address).unwrap();
    }

    // SIGKILL: nothing of the victim's own can run.
    victim.kill().unwrap();
    victim.wait().unwrap();

    // A client that still gets in waits for the end of the connection, which comes with the end of the server. The
    // bytes are not a valid request for any of the three: PostgreSQL's shutdown would wait a minute for a silent
    // client.
    let given_up = Instant::now() + Duration::from_secs(60);
    for address in addresses {
        while let Ok(mut connection) = TcpStream::connect(address) {
            assert!(Instant::now() < given_up, "{address} still serves");
            connection
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            let _ = connection.write_all(b"\r\n\r\n");
            let _ = connection.read_to_end(&mut Vec::new());
        }
    }
}
