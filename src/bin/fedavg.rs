//! The operator's tool: trains in one process, or drives a coordinator.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use fedavg::{
    cli::{
        AttacksArgs, CompletionsArgs, EXIT_CODES, EvaluateArgs, ExportArgs, Failure, InitArgs,
        LogArgs, ManArgs, PlotArgs, Screen, SimulateArgs, StrategiesArgs, arguments,
        data::DataArgs,
        exit,
        model::ModelCommand,
        operator::{
            AuditArgs, CancelArgs, CloneArgs, DeleteArgs, HealthArgs, LogsArgs, PauseArgs,
            ResultsArgs, StatusArgs, SubmitArgs, TokenCommand, WaitArgs, WatchArgs, WorkersArgs,
        },
    },
    transport::http::openapi,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Federated averaging: train one model on several machines without moving their data.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    Simulate(Box<SimulateArgs>),
    Evaluate(Box<EvaluateArgs>),
    Init(InitArgs),
    #[command(visible_alias = "start")]
    Submit(Box<SubmitArgs>),
    Clone(Box<CloneArgs>),
    Status(StatusArgs),
    #[command(visible_alias = "monitor")]
    Watch(WatchArgs),
    Wait(WaitArgs),
    Logs(LogsArgs),
    Results(ResultsArgs),
    Plot(PlotArgs),
    Export(ExportArgs),
    Workers(WorkersArgs),
    Cancel(CancelArgs),
    Pause(PauseArgs),
    /// Let the rounds of a paused job begin again
    Resume(PauseArgs),
    Delete(DeleteArgs),
    #[command(subcommand)]
    Model(ModelCommand),
    Data(DataArgs),
    #[command(subcommand)]
    Token(TokenCommand),
    Audit(AuditArgs),
    Health(HealthArgs),
    Strategies(StrategiesArgs),
    Attacks(AttacksArgs),
    /// Print the OpenAPI document of the coordinator's HTTP API
    Openapi,
    Completions(CompletionsArgs),
    Man(ManArgs),
}

fn main() -> ExitCode {
    let arguments: Arguments = arguments();
    let screen = Screen::new();
    let usual = match arguments.command {
        // Its progress shows what its own workers and coordinator would log.
        Command::Simulate(_) | Command::Evaluate(_) => {
            "warn,fedavg::worker::task=error,fedavg::worker::session_loop=error,fedavg::coordinator::carry_out=error,fedavg::coordinator::offers=error,fedavg::coordinator::timekeeper=error"
        }
        _ => "warn",
    };
    arguments.log.start(usual, &screen);
    exit(run(&arguments.command, &screen))
}

fn run(command: &Command, screen: &Screen) -> Result<(), Failure> {
    match command {
        Command::Simulate(arguments) => arguments.run(screen),
        Command::Evaluate(arguments) => arguments.run(screen),
        Command::Init(arguments) => arguments.run(screen),
        Command::Submit(arguments) => arguments.run(screen),
        Command::Clone(arguments) => arguments.run(screen),
        Command::Status(arguments) => arguments.run(screen),
        Command::Watch(arguments) => arguments.run(screen),
        Command::Wait(arguments) => arguments.run(),
        Command::Logs(arguments) => arguments.run(screen),
        Command::Results(arguments) => arguments.run(screen),
        Command::Plot(arguments) => arguments.run(screen),
        Command::Export(arguments) => arguments.run(screen),
        Command::Workers(arguments) => arguments.run(screen),
        Command::Cancel(arguments) => arguments.run(screen),
        Command::Pause(arguments) => arguments.run(screen, true),
        Command::Resume(arguments) => arguments.run(screen, false),
        Command::Delete(arguments) => arguments.run(screen),
        Command::Strategies(arguments) => arguments.run(screen),
        Command::Attacks(arguments) => arguments.run(screen),
        Command::Model(command) => command.run(screen),
        Command::Data(arguments) => arguments.run(screen),
        Command::Token(command) => command.run(screen),
        Command::Audit(arguments) => arguments.run(screen),
        Command::Health(arguments) => arguments.run(screen),
        Command::Openapi => screen.print_json(&openapi()),
        Command::Completions(arguments) => arguments.run(screen, Arguments::command()),
        Command::Man(arguments) => arguments.run(screen, Arguments::command()),
    }
}
