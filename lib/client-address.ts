import ipaddr from 'ipaddr.js';

type Network = [ipaddr.IPv4 | ipaddr.IPv6, number];

/** Bits of an IPv6 address that tell one customer of a provider from another: who has one address there has the rest of its network. */
const customerBits = 56;

/**
 * The client that limits by address count an address for: an IPv4 address itself (also where it is mapped into IPv6), of an IPv6
 * address its network of 56 bits (`2001:db8:0:100::/56`). What is no address is a client of that name.
 */
export function clientOf(address: string): string {
  // Most are IPv4, and need no parsing.
  if (!address.includes(':') || !ipaddr.isValid(address)) return address;
  const parsed = ipaddr.process(address);
  if (parsed.kind() === 'ipv4') return parsed.toString();
  const network = ipaddr.IPv6.networkAddressFromCIDR(`${withoutZone(parsed)}/${customerBits}`);
  return `${network.toString()}/${customerBits}`;
}

function withoutZone(address: ipaddr.IPv4 | ipaddr.IPv6): string {
  return address.toString().split('%', 1)[0] as string;
}

/** Whether a text is an IP address, or a network in CIDR notation (RFC 4632, RFC 4291): `10.0.0.0/8`, `fd00::/8`. */
export function isNetwork(text: string): boolean {
  const { IPv4, IPv6 } = ipaddr;
  // The short forms of IPv4 (`10.1` for 10.0.0.1) are more often mistakes.
  if (!text.includes(':')) return IPv4.isValidCIDRFourPartDecimal(text) || IPv4.isValidFourPartDecimal(text);
  return IPv6.isValidCIDR(text) || IPv6.isValid(text);
}

/** A list of addresses and networks, to find out whether one of them has an address. */
export class Networks {
  readonly #networks: readonly Network[];
  /** What was found of addresses that were asked for: the same few ask all the time. */
  readonly #known = new Map<string, boolean>();

  /** @param list addresses and networks in CIDR notation, each as `isNetwork` has it */
  constructor(list: readonly string[]) {
    this.#networks = list.map((text) => {
      if (text.includes('/')) return ipaddr.parseCIDR(text);
      const address = ipaddr.process(text);
      return [address, address.kind() === 'ipv4' ? 32 : 128];
    });
  }

  /** Whether the address is one of them. IPv4 addresses that are mapped into IPv6 count as IPv4. */
  has(address: string): boolean {
    let found = this.#known.get(address);
    if (found === undefined) {
      found = this.#find(address);
      if (this.#known.size >= mostKnown) this.#known.clear();
      this.#known.set(address, found);
    }
    return found;
  }

  #find(address: string): boolean {
    if (!ipaddr.isValid(address)) return false;
    const parsed = ipaddr.process(address);
    return this.#networks.some(([network, bits]) => network.kind() === parsed.kind() && parsed.match([network, bits]));
  }
}

const mostKnown = 1_000;
