// Everything every page of the console needs. Each part works alone, and each page works without any of them.
import "./requests.js";
import "./theme.js";
import "./ages.js";
import "./copy.js";
import "./live.js";
