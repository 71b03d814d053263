gcc -shared -fPIC -o addon.node "$ADDON" && gcc -shared -fPIC -o other.node "$ADDON"
node - <<'END'
const addon = require("./addon.node"), other = require("./other.node");
console.log(addon.twice(21), other.twice(4), addon === require("./addon.node"));
const { Worker } = require("worker_threads");
const worker = new Worker('console.log("worker", require("./addon.node").twice(5))', { eval: true });
worker.on("exit", () => {
    console.log(require("child_process").execFileSync(process.execPath, ["-p", '"child " + require("./addon.node").twice(1)']).toString());
    try { process.dlopen({ exports: {} }, "/nowhere.node"); } catch (e) { console.log(e.message); }
});
END
