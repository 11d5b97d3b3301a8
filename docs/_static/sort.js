// A click (or Enter) on the head of a column sorts the table by it: numbers with the largest first, texts from A to Z.
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const sort = (head) => {
    const column = heads.indexOf(head);
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const numbers = rows.every((row) => !isNaN(Number(value(row, column)))); // an empty cell is 0 here
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numbers;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => (numbers && value(row, column) !== "" ? Number(value(row, column)) : value(row, column));
    const empty = (each) => each === "";
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y); // what was not measured comes last
      const order = numbers ? x - y : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  };
  heads.filter((head) => "sort" in head.dataset).forEach((head) => {
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head));
  });
});
