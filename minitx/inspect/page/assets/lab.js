/** The live model: placeholder until the server's view is mounted. */
export function mount() {}
