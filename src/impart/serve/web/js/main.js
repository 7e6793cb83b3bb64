// Start of the page.

import { State } from "./state.js";

const state = new State();
state.on(() => {});
