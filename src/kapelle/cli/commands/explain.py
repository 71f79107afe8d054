"""`explain`: the long text of an error's code, for people and for programs that met it."""

from __future__ import annotations

from kapelle.cli.flags import Args
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "explain"
HELP = "say more about an error's code"
ARGUMENTS = "[CODE]"
FLAGS = ()

# code -> (in a few words, what it means and what helps)
CODES: dict[str, tuple[str, str]] = {
    "KAP001": ("something went wrong", "The message itself says what; there is no more specific code for it."),
    "KAP010": ("the command line", "A command, flag or value is not known. kap help COMMAND lists what it takes."),
    "KAP012": (
        "not part of this version",
        "The command or flag is docker compose's, but what it asks for is not built here.",
    ),
    "KAP101": (
        "another engine was asked for",
        "--engine or KAP_ENGINE named an engine that is not here. Kapelle runs containers itself: leave the flag out.",
    ),
    "KAP201": (
        "a published port is taken",
        "Another program listens on the address and port that a service publishes; nothing was created. Stop the "
        "holder that the message names, or publish another port: the left number under ports:. kap up --ports=auto "
        "(or KAP_PORTS=auto) takes a free one instead and remembers it; kap ps and kap port show which.",
    ),
    "KAP202": (
        "a name or address is taken",
        "Two containers can't have the same container_name, and two networks no common addresses that were asked "
        "for. Take the other one down (kap ls -a finds its project) or choose another name.",
    ),
    "KAP203": (
        "the kernel refused a step of the network",
        "Interfaces, routes or rules could not be made. In a container or sandbox the right to do so may be missing "
        "(CAP_NET_ADMIN); the message has the kernel's own word.",
    ),
    "KAP204": ("a protocol can't be published", "Ports are published for tcp and udp."),
    "KAP205": (
        "a low port",
        "Ports below net.ipv4.ip_unprivileged_port_start (usually 1024) belong to root. Publish a higher one.",
    ),
    "KAP206": (
        "an address is not this machine's",
        "A port can only be published on an address that this machine has. Leave the address out to publish on all.",
    ),
    "KAP207": ("subnets", "A subnet or gateway under networks.*.ipam is too small, overlaps or is out of its range."),
    "KAP208": ("a network driver", "The native engine has bridge networks. Leave driver: out."),
    "KAP209": ("a network is missing", "A container refers to a network that was removed meanwhile. kap up makes it."),
    "KAP301": (
        "a step failed, or a dependency ended",
        "A service was not started because one that it depends on ended before its condition held (or a step of the "
        "engine failed). The rows show the chain and the last lines of output; kap logs SERVICE shows all.",
    ),
    "KAP302": (
        "a service is unhealthy",
        "Its health check failed as often as retries allows. The rows show the probe and what it said last. Code 127 "
        "means that the probe's program is not in the image, although the service itself may be well.",
    ),
    "KAP303": ("it took too long", "--wait-timeout ended the wait. Give it longer, or see kap logs SERVICE."),
    "KAP304": ("no such service", "The file has no service of that name; the known ones are listed."),
    "KAP305": ("a service has no running container", "kap up -d SERVICE creates and starts it; kap ps -a shows all."),
    "KAP306": (
        "something external is missing",
        "external: true says that somebody else makes it. kap network create NAME or kap volume create NAME does.",
    ),
    "KAP307": ("one name, several replicas", "container_name fixes the name of one container. Remove one of the two."),
    "KAP308": ("a volume", "It does not exist, or a container still uses it: remove that container first."),
    "KAP309": ("a network", "It exists already, does not exist, or containers are on it: remove those first."),
    "KAP311": (
        "too few open files",
        "Each container needs some ten open files of the process that keeps it, and this user may not have so many.",
    ),
    "KAP310": ("the supervisor refused", "The process that keeps a project's containers gave the reason shown."),
    "KAP315": ("nothing is called that", "No container, image, network or volume has that name or ID."),
    "KAP320": (
        "a key is not honoured here",
        "This engine can't do what the key asks. The project runs without it unless it is an error; the message has "
        "the place.",
    ),
    "KAP321": (
        "a value that can't be used",
        "A limit is out of its range or larger than this machine, a device is not here, or the key is known but not "
        "this value of it: the message says what would do. Nothing was created.",
    ),
    "KAP322": (
        "a security option",
        "security_opt has an option that is not known, or a seccomp profile that can't be read. Nothing was created.",
    ),
    "KAP323": (
        "no such GPU or device",
        "gpus:, devices: or deploy.resources.reservations.devices asks for a device that no CDI specification "
        "describes and no driver offers. Nothing was created. kap reads /etc/cdi and /var/run/cdi.",
    ),
    "KAP330": (
        "files could not be copied",
        "A path is missing, or something is in its way; the message names it. Nothing outside the container's own "
        "files was touched: a container's links are followed inside it.",
    ),
    "KAP401": (
        "variables",
        "A ${VARIABLE} is written wrongly or has no value. .env beside the file, --env-file and the environment of "
        "the caller give values; env_file: only fills the container.",
    ),
    "KAP402": ("a compose file", "The file is no valid YAML or has a key or value that is not known at that place."),
    "KAP403": ("profiles and dependencies", "A service is switched off by its profile, or undefined: --profile NAME."),
    "KAP404": (
        "nothing is there",
        "config --explain: the path names nothing in the merged file; the message says what is there.",
    ),
    "KAP501": (
        "an image can't be had",
        "No registry or mirror gave it. KAP_MIRRORS names mirrors, kap load -i FILE takes an archive, and "
        "--stand-ins (KAP_STAND_INS=1) builds a stand-in for some official images.",
    ),
    "KAP502": (
        "an image is neither here nor allowed to be fetched",
        "Its pull policy or a flag forbids what would get it, or no registry has it because it is built by another "
        "service. kap build SERVICE or kap pull SERVICE gets it.",
    ),
    "KAP503": ("no image for this machine", "The image has no variant for this processor. Choose another tag."),
    "KAP504": ("damaged data", "What came is not what its digest promises, or no image at all. Nothing was kept."),
    "KAP505": ("compression", "A layer needs a decompressor that this Python lacks: pip install 'kapelle[zstd]'."),
    "KAP506": ("no space", "The disk or quota is full. What was half written is gone; make room and run it again."),
    "KAP507": (
        "an image is in use",
        "A container was made of it, or it has several names. Remove the container, or see kap rmi --help.",
    ),
    "KAP508": (
        "an image could not be pushed",
        "The registry refused it or broke off. The rows say what it answered; kap login REGISTRY may be missing.",
    ),
    "KAP509": ("a login", "The registry does not take the user name and password, or a credential helper failed."),
    "KAP510": ("a step of a build failed", "The instruction's output stands above; the message has its line."),
    "KAP511": ("a Dockerfile", "An instruction can't be taken as written; the message has file and line."),
    "KAP512": (
        "the network is forbidden",
        "--offline or KAP_OFFLINE=1 is set and something needs the network. Do that once without it, or bring what is "
        "needed: kap bundle save FILE where there is a network, kap up --from FILE here.",
    ),
    "KAP513": (
        "a recipe of yours",
        "A file in the standins folder of your configuration has a mistake, or others may write to it "
        "(docs/guide-standins.md).",
    ),
    "KAP520": (
        "a bundle",
        "The file is no bundle of kap bundle save, or not what it was when it was made. Nothing of it was kept.",
    ),
    "KAP601": (
        "a mount's source is missing",
        "A file that is to be mounted does not exist. No directory was made in its place; create the file.",
    ),
    "KAP701": (
        "containers can't be started as this user",
        "Kapelle needs the right to make namespaces and mounts, or user namespaces to get it in. kap doctor says what "
        "is missing on this machine and what an administrator may run.",
    ),
    "KAP801": (
        "the kernel killed a service",
        "It ran out of memory: of its mem_limit, or the machine's. Exit code 137 is signal 9. Raise mem_limit, or let "
        "the program use less; kap ps -a shows which containers ended so.",
    ),
    "KAP901": ("kept state", "What is kept between commands is damaged or can't be written; KAP_HOME moves it."),
    "KAP905": (
        "output not written",
        "Standard output leads to a full disk (or to /dev/full): what the command did is done, what it had to say is "
        "not all there.",
    ),
    "KAP902": (
        "autostart",
        "The systemd unit that brings a project back at boot could not be written or enabled, or systemd does not run "
        "here. kap autostart install --print shows the unit; kap -p NAME autostart boot is what it runs.",
    ),
    "KAP999": ("a defect of kap", "Not your files' fault. The report that is named holds what is needed to repair it."),
}


def run(context: Context, args: Args) -> int:
    if not args.rest:
        rows = [f"{code}  {short}" for code, (short, _) in CODES.items()]
        context.stdout.write("\n".join(rows) + "\n")
        return 0
    import textwrap

    for word in args.rest:
        code = word.upper() if word.upper().startswith("KAP") else f"KAP{word}"
        if code not in CODES:
            raise UsageError(f"no such code: {word}", hint="kap explain lists all")
        short, text = CODES[code]
        context.stdout.write(f"{code}: {short}\n\n{textwrap.fill(text, 100)}\n")
    return 0
